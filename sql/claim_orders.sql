-- The orders that are to be carried out now: not the duplicates of one that was. Claims those that no record guards: they may
-- leave none, or bear an operator's key, which may stand for another request by now.
create function msal_logout.claim_orders(orders msal_logout.signal_order[]) returns msal_logout.signal_order[]
language plpgsql as $$
declare
  claimed msal_logout.signal_order[];
begin
  with new as (
    insert into msal_logout.seen_orders (id, expires_at)
    select distinct o.id, now() + interval '7 days' -- longer than any token is accepted, or anything is deferred
    from unnest(orders) o where o.once and (o.actor is not null or not o.record_unmatched)
    on conflict (id) do nothing
    returning seen_orders.id
  )
  select array_agg(o) into claimed
  from unnest(orders) o
  where not (o.once and (o.actor is not null or not o.record_unmatched)) or o.id in (select n.id from new n);
  return claimed;
end
$$;
