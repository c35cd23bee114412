-- The generation of a new row, or of a login: the time, and later than all that a sweep or a sign-out in steps still takes. The clock
-- alone would not do: rows that were restored, or came by another clock, may lie ahead of it. A login asks after `admit`, so that it
-- knows each that began before it. By a clock behind the first step of these it is any number of the next minute: no two may be one, or a
-- save of an old login would come into a new one's row.
create function msal_logout.new_generation() returns bigint
language plpgsql as $$
begin
  return greatest(
    (extract(epoch from clock_timestamp()) * 1000000)::bigint,
    (select max(r.last_generation + case
        when clock_timestamp() > r.at then 1 + (extract(epoch from clock_timestamp() - r.at) * 1000000)::bigint
        else 1 + (random() * 60000000)::bigint end)
      from msal_logout.records r where r.status <> 'done')); -- keeps records_under_way
end
$$;
