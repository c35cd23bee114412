-- What an order would delete now, as `sign_out` and the steps of `sign_out_step` do. It is counted by what is stored, and locks and writes
-- nothing. An account counts in an app if nothing of it would be left there.
create function msal_logout.preview_order(o msal_logout.signal_order)
returns table (
  outcome text, account_issuers text[], account_ids text[],
  -- Side by side: what would go in an app.
  clients text[], client_accounts int[], client_sessions int[], client_rows int[]
)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set jit = off
set enable_seqscan = off set enable_bitmapscan = off set enable_mergejoin = off
as $$
#variable_conflict use_column
begin
  if exists (select from msal_logout.records r where r.id = o.id and (o.once or r.status = 'unfinished'))
    or exists (
      select from msal_logout.seen_orders s where s.id = o.id and o.once and (o.actor is not null or not o.record_unmatched))
  then
    return query
    select 'duplicate', coalesce(r.account_issuers, '{}'), coalesce(r.account_ids, '{}'),
      '{}'::text[], '{}'::int[], '{}'::int[], '{}'::int[]
    from (values (1)) one
    left join msal_logout.records r on r.id = o.id;
    return;
  end if;

  return query
  with matches as materialized (
    select * from msal_logout.match_sessions(array[o])
    union all
    select * from msal_logout.match_accounts(array[o])
  ), accounts as materialized (
    select distinct m.account_issuer, m.home_account_id from matches m
  ), stored_sessions as materialized (
    select a.account_issuer, a.home_account_id, s.client_id, count(*) as n
    from accounts a
    cross join lateral (
      select s.client_id from msal_logout.sessions s
      where s.home_account_id = a.home_account_id and s.account_issuer is not distinct from a.account_issuer -- keeps sessions_account
      offset 0
    ) s
    group by a.account_issuer, a.home_account_id, s.client_id
  ), stored_rows as materialized (
    select a.account_issuer, a.home_account_id, t.client_id, count(*) as n
    from accounts a
    cross join lateral (
      select t.client_id from msal_logout.token_cache t
      where t.home_account_id = a.home_account_id and t.account_issuer is not distinct from a.account_issuer
        and t.partition_key <> '' -- keeps token_cache_account: the others, which bear the account too, do not bear this
      offset 0
    ) t
    group by a.account_issuer, a.home_account_id, t.client_id
  ), ended as materialized ( -- the sessions, where not all of an account goes
    select distinct m.issuer, m.session_key, m.client_id, m.partition_key, s.is_live, s.account_issuer, s.home_account_id
    from matches m
    cross join lateral (
      select s.expires_at > now() as is_live, s.account_issuer, s.home_account_id from msal_logout.sessions s
      where s.session_key = m.session_key and s.issuer is not distinct from m.issuer -- keeps the primary key
        and s.client_id is not distinct from m.client_id and s.partition_key is not distinct from m.partition_key
      offset 0
    ) s
    where o.purge_scope <> 'account' and m.session_key is not null
  ), live_ended as materialized (
    select e.client_id, e.partition_key, count(*) as n from ended e where e.is_live group by e.client_id, e.partition_key
  ), unused as ( -- the rows that no other live session uses
    select r.client_id, r.account_issuer, r.home_account_id
    from (
      select distinct m.client_id, m.partition_key, m.account_issuer, m.home_account_id from matches m
      where o.purge_scope <> 'account'
    ) r
    left join live_ended l on l.client_id = r.client_id and l.partition_key = r.partition_key
    cross join lateral (
      select from msal_logout.token_cache t
      where t.partition_key = r.partition_key and t.client_id is not distinct from r.client_id -- keeps the primary key
        and t.account_issuer is not distinct from r.account_issuer and t.home_account_id is not distinct from r.home_account_id
      offset 0
    ) t
    cross join lateral (
      select count(*) as n from msal_logout.sessions s
      where s.partition_key = r.partition_key and s.client_id is not distinct from r.client_id -- keeps sessions_row
        and s.expires_at > now()
    ) s
    where s.n = coalesce(l.n, 0)
  ), gone as (
    select s.account_issuer, s.home_account_id, s.client_id, s.n as sessions, 0 as rows from stored_sessions s
    where o.purge_scope = 'account'
    union all
    select t.account_issuer, t.home_account_id, t.client_id, 0, t.n from stored_rows t where o.purge_scope = 'account'
    union all
    select e.account_issuer, e.home_account_id, e.client_id, 1, 0 from ended e
    union all
    select u.account_issuer, u.home_account_id, u.client_id, 0, 1 from unused u
  ), counted as (
    select g.client_id,
      count(*) filter (where g.sessions = coalesce(s.n, 0) and g.rows = coalesce(t.n, 0)) as accounts,
      sum(g.sessions) as sessions, sum(g.rows) as rows
    from (
      select g.account_issuer, g.home_account_id, g.client_id, sum(g.sessions) as sessions, sum(g.rows) as rows from gone g
      group by g.account_issuer, g.home_account_id, g.client_id
    ) g
    left join stored_sessions s on s.account_issuer = g.account_issuer and s.home_account_id = g.home_account_id
      and s.client_id = g.client_id
    left join stored_rows t on t.account_issuer = g.account_issuer and t.home_account_id = g.home_account_id
      and t.client_id = g.client_id
    group by g.client_id
  )
  select case when cardinality(a.ids) = 0 then 'unmatched' else 'done' end, a.issuers, a.ids,
    c.clients, c.accounts, c.sessions, c.rows
  from (
    select coalesce(array_agg(a.account_issuer), '{}') as issuers, coalesce(array_agg(a.home_account_id), '{}') as ids from accounts a
  ) a
  cross join (
    select coalesce(array_agg(c.client_id), '{}') as clients, coalesce(array_agg(c.accounts::int), '{}') as accounts,
      coalesce(array_agg(c.sessions::int), '{}') as sessions, coalesce(array_agg(c.rows::int), '{}') as rows
    from counted c
  ) c;
end
$$;
