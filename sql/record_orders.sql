-- Records what the orders did, and returns it. `matched_*` stand side by side: the accounts that each order matched.
create function msal_logout.record_orders(
  orders msal_logout.signal_order[], matched_ids uuid[], matched_issuers text[], matched_accounts text[],
  deletions msal_logout.deletion[]
) returns table (id uuid, account_issuers text[], account_ids text[], sessions bigint, rows bigint, by_client jsonb)
language plpgsql as $$
#variable_conflict use_column
begin
  return query
  with results as materialized (
    select o.*, coalesce(a.account_issuers, '{}') as account_issuers, coalesce(a.account_ids, '{}') as account_ids,
      coalesce(c.sessions, 0) as sessions, coalesce(c.rows, 0) as rows, coalesce(c.by_client, '{}') as by_client
    from unnest(orders) o
    left join (
      select m.id, array_agg(m.account_issuer) as account_issuers, array_agg(m.home_account_id) as account_ids
      from unnest(matched_ids, matched_issuers, matched_accounts) m (id, account_issuer, home_account_id)
      group by m.id
    ) a on a.id = o.id
    left join msal_logout.count_deletions(deletions) c on c.id = o.id
  ), recorded as (
    insert into msal_logout.records (
      id, source, issuer, client_id, jti, sid, subject, home_account_id, tenant_id, object_id, revoke_before, reason, actor,
      request_hash, account_issuers, account_ids, total, accounts, sessions, rows, by_client, finished_at)
    select r.id, r.source, nullif(r.issuer, ''), r.client_id, r.jti, r.sid, r.subject, r.home_account_id, r.tenant_id, r.object_id,
      r.revoke_before, r.reason, r.actor, r.request_hash, r.account_issuers, r.account_ids, cardinality(r.account_ids),
      cardinality(r.account_ids), r.sessions, r.rows, r.by_client, now()
    from results r
    where r.record_unmatched or cardinality(r.account_ids) > 0
    on conflict (id) do nothing
  )
  select r.id, r.account_issuers, r.account_ids, r.sessions, r.rows, r.by_client from results r;
end
$$;
