//! The order of attempts.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tower_service::Service;

use crate::{
    body::{LearnBody, RetryBody},
    call::Call,
    served::Work,
};

pin_project! {
    /// The response of a [`RywClientService`](crate::RywClientService).
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
        B: RetryBody,
    {
        service: S,
        call: Option<Call<B>>,
        #[pin]
        state: State<S, B>,
    }
}

pin_project! {
    #[project = Stage]
    enum State<S, B>
    where
        S: Service<Request<B>>,
    {
        Asked { #[pin] response: S::Future },
        Pause { #[pin] sleep: Sleep, next: Option<Request<B>> },
        // The service has to be ready for another request.
        Ready { next: Option<Request<B>> },
        // The request that is being served is told before the caller goes on.
        HandOver { work: Work, answer: Option<Result<S::Response, S::Error>> },
        Done,
    }
}

impl<S, B> ResponseFuture<S, B>
where
    S: Service<Request<B>>,
    B: RetryBody,
{
    pub(crate) const fn new(service: S, call: Call<B>, response: S::Future) -> Self {
        Self { service, call: Some(call), state: State::Asked { response } }
    }
}

impl<S, B, R> Future for ResponseFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
    B: RetryBody,
{
    type Output = Result<Response<LearnBody<R>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                Stage::Asked { response } => {
                    let answer = match ready!(response.poll(cx)) {
                        Ok(answer) => answer,
                        Err(error) => {
                            // Whatever this leaves open is told to the session before the caller goes on.
                            let Some(call) = this.call.as_mut() else { break };
                            call.failed();
                            let work = call.hand_over().unwrap_or_else(|| Box::pin(async {}));
                            this.state.set(State::HandOver { work, answer: Some(Err(error)) });
                            continue;
                        }
                    };
                    let Some(mut call) = this.call.take() else { break };
                    match call.answered(&answer) {
                        None => match call.hand_over() {
                            None => {
                                this.state.set(State::Done);
                                return Poll::Ready(Ok(call.finish(answer)));
                            }
                            Some(work) => {
                                *this.call = Some(call);
                                this.state.set(State::HandOver { work, answer: Some(Ok(answer)) });
                            }
                        },
                        Some((pause, request)) => {
                            *this.call = Some(call);
                            let next = Some(request);
                            this.state.set(match pause.is_zero() {
                                true => State::Ready { next },
                                false => State::Pause { sleep: sleep(pause), next },
                            });
                        }
                    }
                }
                Stage::Pause { sleep, next } => {
                    ready!(sleep.poll(cx));
                    let next = next.take();
                    this.state.set(State::Ready { next });
                }
                Stage::Ready { next } => {
                    if let Err(error) = ready!(this.service.poll_ready(cx)) {
                        let Some(call) = this.call.as_ref() else { break };
                        let work = call.hand_over().unwrap_or_else(|| Box::pin(async {}));
                        this.state.set(State::HandOver { work, answer: Some(Err(error)) });
                        continue;
                    }
                    let (Some(mut request), Some(call)) = (next.take(), this.call.as_mut()) else { break };
                    call.attach(&mut request);
                    let response = this.service.call(request);
                    this.state.set(State::Asked { response });
                }
                Stage::HandOver { work, answer } => {
                    ready!(work.as_mut().poll(cx));
                    let (Some(answer), Some(call)) = (answer.take(), this.call.take()) else { break };
                    this.state.set(State::Done);
                    return Poll::Ready(answer.map(|answer| call.finish(answer)));
                }
                Stage::Done => break,
            }
        }
        panic!("polled after it had been answered")
    }
}

impl<S, B> fmt::Debug for ResponseFuture<S, B>
where
    S: Service<Request<B>>,
    B: RetryBody,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
