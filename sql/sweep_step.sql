-- One step of a running sweep, of what was there when it began: up to `max_rows` rows, in the order in which they came.
-- Outcomes: 'more' (another step is due), 'held' (also, but somebody holds all rows of this one), 'done' (the last step; each
-- sweep has one), 'busy' (another instance is at it, or it is over).
-- A step locks its record, rows, their sessions and the apps' positions, but no key: everyone who stores or deletes a row's
-- session locks the row first. It passes over
-- a row that somebody holds: a further round takes it, and the sweep is over when a round found nothing.
create function msal_logout.sweep_step(id uuid, max_rows int) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  p msal_logout.records;
  up_to bigint; -- the newest generation of this step
  deletions msal_logout.deletion[];
  finished_accounts bigint;
  is_done boolean;
begin
  select r.* into p from msal_logout.records r where r.id = sweep_step.id and r.status = 'running' for update skip locked;
  if not found then
    return 'busy';
  end if;

  -- Pairs are compared: a bound of `generation` alone could be looked up in any index that it is in, among the rows of all
  -- tenants and apps. One of the two halves is of null, and finds nothing.
  select max(d.generation) into up_to
  from (
    (select t.generation from msal_logout.token_cache t
    where (t.tenant_id, t.generation) > (p.tenant_id, p.swept_to)
      and (t.tenant_id, t.generation) <= (p.tenant_id, p.last_generation)
    order by t.tenant_id, t.generation limit sweep_step.max_rows) -- keeps token_cache_tenant
    union all
    (select t.generation from msal_logout.token_cache t
    where (t.client_id, t.generation) > (p.client_id, p.swept_to)
      and (t.client_id, t.generation) <= (p.client_id, p.last_generation)
    order by t.client_id, t.generation limit sweep_step.max_rows) -- keeps token_cache_client
  ) d;

  if up_to is not null then
    with due as materialized (
      select t.partition_key, t.client_id from msal_logout.token_cache t
      where (t.tenant_id, t.generation) > (p.tenant_id, p.swept_to) and (t.tenant_id, t.generation) <= (p.tenant_id, up_to)
      union all
      select t.partition_key, t.client_id from msal_logout.token_cache t
      where (t.client_id, t.generation) > (p.client_id, p.swept_to) and (t.client_id, t.generation) <= (p.client_id, up_to)
    ), locked as materialized (
      select t.partition_key, t.client_id from due d
      join msal_logout.token_cache t
        on t.partition_key = any (array[d.partition_key]) and t.client_id is not distinct from d.client_id
      where t.generation - p.last_generation <= 0 -- not one that came meanwhile under the same key
      for update of t skip locked
    ), gone as (
      delete from msal_logout.token_cache t using locked l
      where t.partition_key = any (array[l.partition_key]) and t.client_id is not distinct from l.client_id
      returning t.client_id, t.partition_key, t.account_issuer, t.home_account_id
    ), gone_sessions as (
      delete from msal_logout.sessions s using gone g
      where s.partition_key = any (array[g.partition_key]) and s.client_id is not distinct from g.client_id -- keeps sessions_row
      returning (p.id, s.client_id, s.account_issuer, s.home_account_id, false,
        (s.issuer, s.sid, s.subject, s.home_account_id)::msal_logout.revoked_session)::msal_logout.deletion as d
    )
    select array_agg(g.d) into deletions
    from (
      select (p.id, g.client_id, g.account_issuer, g.home_account_id, true, null)::msal_logout.deletion as d from gone g
      union all
      select * from gone_sessions
    ) g;
  end if;

  -- An account counts in the step that takes the last of its rows.
  select count(*) into finished_accounts
  from (
    select d.account_issuer, d.home_account_id from unnest(deletions) d
    where d.is_row and d.home_account_id is not null
    group by d.account_issuer, d.home_account_id
  ) a
  where not exists (
    select from msal_logout.token_cache t
    where t.home_account_id = a.home_account_id -- keeps token_cache_account
      and t.account_issuer is not distinct from a.account_issuer
      and (p.client_id is null or t.client_id is not distinct from p.client_id)
      and t.generation - p.last_generation <= 0
    offset 0);
  is_done := up_to is null and p.swept_to = 0;
  update msal_logout.records r set
    swept_to = coalesce(up_to, 0),
    accounts = r.accounts + finished_accounts,
    sessions = r.sessions + coalesce(c.sessions, 0),
    rows = r.rows + coalesce(c.rows, 0),
    clients = coalesce(c.clients, r.clients),
    client_accounts = coalesce(c.client_accounts, r.client_accounts),
    client_sessions = coalesce(c.client_sessions, r.client_sessions),
    client_rows = coalesce(c.client_rows, r.client_rows),
    status = case when is_done then 'done' else 'running' end,
    finished_at = case when is_done then now() end
  from (
    select sum(s.new_sessions) as sessions, sum(s.new_rows) as rows, array_agg(s.client_id) as clients,
      array_agg(s.accounts) as client_accounts, array_agg(s.sessions) as client_sessions, array_agg(s.rows) as client_rows
    from (
      select c.client_id, sum(c.accounts)::int as accounts, sum(c.sessions)::int as sessions, sum(c.rows)::int as rows,
        sum(c.sessions) filter (where c.is_new) as new_sessions, sum(c.rows) filter (where c.is_new) as new_rows
      from (
        select k.*, false as is_new
        from unnest(p.clients, p.client_accounts, p.client_sessions, p.client_rows) k (client_id, accounts, sessions, rows)
        union all
        select d.*, true from msal_logout.count_deletions(deletions) d
      ) c
      group by c.client_id
    ) s
  ) c
  where r.id = p.id;
  perform msal_logout.publish_revocations(deletions);
  return case when is_done then 'done' when up_to is not null and deletions is null then 'held' else 'more' end;
end
$$;
