-- The orders that are to be carried out now: not the duplicates of one that was, nor a second one of the same id. After their
-- locks, so that the same signal in another transaction has committed.
create function msal_logout.claim_orders(orders msal_logout.signal_order[]) returns msal_logout.signal_order[]
language plpgsql as $$
declare
  claimed msal_logout.signal_order[];
begin
  with new as (
    insert into msal_logout.seen_orders (id, expires_at)
    select distinct o.id, now() + interval '7 days' -- longer than any token is accepted, or anything is deferred
    from unnest(orders) o where o.once
    on conflict (id) do nothing
    returning seen_orders.id
  )
  select array_agg(d.o) into claimed
  from (select distinct on (o.id) o from unnest(orders) o order by o.id) d
  where not (d.o).once or (d.o).id in (select n.id from new n);
  return claimed;
end
$$;
