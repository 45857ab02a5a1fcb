/** An acknowledged write that did not survive a failover. */
export interface Lost {
  /** The epoch that is current now. */
  readonly epoch: number;
  /** The epoch that the write had been made in. */
  readonly was: number;
}

/** `?1;epoch=2;was=1`. */
export function parseLost(field: string | null): Lost | undefined {
  const [item, ...parameters] = (field ?? "").slice(0, 256).split(";").map((part) => part.trim());
  if (item !== "?1") return undefined;
  const find = (name: string): number | undefined => {
    const parameter = parameters.findLast((part) => part.startsWith(`${name}=`));
    return number(parameter?.slice(name.length + 1));
  };
  return lost(find("epoch"), find("was"));
}

/** `2-1`, as in a saved session. */
export function readLost(text: string): Lost | undefined {
  const [epoch, was, ...more] = text.split("-");
  return more.length === 0 ? lost(number(epoch), number(was)) : undefined;
}

export function writeLost(loss: Lost | undefined): string {
  return loss === undefined ? "" : `${loss.epoch}-${loss.was}`;
}

/** Whether `one` tells more than `other`. */
export function isLater(one: Lost, other: Lost | undefined): boolean {
  return other === undefined || one.epoch > other.epoch || (one.epoch === other.epoch && one.was > other.was);
}

function lost(epoch: number | undefined, was: number | undefined): Lost | undefined {
  return epoch === undefined || was === undefined ? undefined : { epoch, was };
}

function number(digits: string | undefined): number | undefined {
  const value = /^\d{1,10}$/.test(digits ?? "") ? Number(digits) : undefined;
  return value !== undefined && value <= 0xffff_ffff ? value : undefined;
}
