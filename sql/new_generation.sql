-- The generation of a new row, or of a login: the time, and later than all that a sweep or a sign-out in steps still takes. The clock
-- alone would not do: rows that were restored, or came by another clock, may lie ahead of it. A login asks after `admit`, so that it
-- knows each that began before it.
create function msal_logout.new_generation() returns bigint
language plpgsql as $$
begin
  return greatest(
    (extract(epoch from clock_timestamp()) * 1000000)::bigint,
    (select max(r.last_generation + greatest(1, (extract(epoch from clock_timestamp() - r.at) * 1000000)::bigint))
      from msal_logout.records r where r.status <> 'done')); -- keeps records_under_way
end
$$;
