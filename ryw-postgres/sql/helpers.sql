-- What tower-ryw needs to know of a server's past, and nothing else of its files. To be run once, by a superuser, on
-- the primary, in each database that is connected to; then
--     grant usage on schema ryw to app;
--     grant execute on function ryw.timeline_history(text) to app;
create schema if not exists ryw;

-- The history of a timeline, which is named by eight hexadecimal digits; null where there is none.
create or replace function ryw.timeline_history(timeline text) returns text
    language sql stable security definer set search_path = pg_catalog, pg_temp
    as $$
        select case when timeline ~ '^[0-9A-F]{8}$' then
            pg_catalog.pg_read_file('pg_wal/' || timeline || '.history', 0, 1000000, true)
        end
    $$;

revoke all on function ryw.timeline_history(text) from public;
