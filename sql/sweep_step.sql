-- One step of a running sweep, of what was there when it began: up to `max_rows` rows, in the order in which they came; fewer while
-- sign-outs come.
-- Outcomes: 'more' (another step is due), 'held' (also, but somebody holds all rows of this one), 'done' (the last step; each
-- sweep has one), 'busy' (another instance is at it, or it is over).
-- A step locks its record, rows, their sessions and the apps' positions, but no key: who stores or deletes a row's session locks
-- the row first; but for a step of a sign-out in whose row a login is by now: should the two meet, that one is tried again. It waits 5 ms
-- for a row at most; if one is held longer, it passes over all that are held. A further round takes them, and the sweep is over when a
-- round found nothing.
create function msal_logout.sweep_step(id uuid, max_rows int) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan -- a plan for this step alone would hold its rows as constants, copied several times
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  asked_at timestamptz := now();
  rows_beside_others constant int := 200;
  p msal_logout.records;
  room int := max_rows;
  up_to bigint; -- the newest generation of this step
  gone msal_logout.match[]; -- the rows
  is_done boolean;
  waits text := current_setting('lock_timeout');
  setting text;
begin
  select r.* into p from msal_logout.records r where r.id = sweep_step.id and r.status = 'running' for update skip locked;
  if not found then
    return 'busy';
  end if;

  -- A commit waits until all that was written before it is on disk, by others, too. After a checkpoint each deleted row is a page of the
  -- log: 2,000 rows are 16 MB.
  if exists (
    select from msal_logout.records r
    where r.at > clock_timestamp() - interval '1 second' and r.id <> p.id) -- keeps records_at
  then
    room := least(room, rows_beside_others);
  end if;

  -- Pairs are compared: a bound of `generation` alone could be looked up in any index that it is in, among the rows of all
  -- tenants and apps. One of the two halves is of null, and finds nothing.
  select max(d.generation) into up_to
  from (
    (select t.generation from msal_logout.token_cache t
    where (t.tenant_id, t.generation) > (p.tenant_id, p.swept_to)
      and (t.tenant_id, t.generation) <= (p.tenant_id, p.last_generation)
    order by t.tenant_id, t.generation limit room) -- keeps token_cache_tenant
    union all
    (select t.generation from msal_logout.token_cache t
    where (t.client_id, t.generation) > (p.client_id, p.swept_to)
      and (t.client_id, t.generation) <= (p.client_id, p.last_generation)
    order by t.client_id, t.generation limit room) -- keeps token_cache_client
  ) d;

  if p.one_row_each is null then
    -- At the first step, which is early enough: nothing is added any more to what the sweep takes. Two ids of one hash only make it look.
    select count(*) = count(distinct hashtextextended(a.home_account_id, 0)) into p.one_row_each
    from (
      select t.home_account_id from msal_logout.token_cache t
      where (t.tenant_id, t.generation) > (p.tenant_id, p.swept_to)
        and (t.tenant_id, t.generation) <= (p.tenant_id, p.last_generation) -- keeps token_cache_tenant
      union all
      select t.home_account_id from msal_logout.token_cache t
      where (t.client_id, t.generation) > (p.client_id, p.swept_to)
        and (t.client_id, t.generation) <= (p.client_id, p.last_generation) -- keeps token_cache_client
    ) a
    where a.home_account_id is not null;
  end if;

  if up_to is not null then
    -- To lock each row first, so as to pass over one that is held, takes as long as to delete it: only if need be. Who holds a row
    -- and waits for another one of this step waits no longer than that, so there is no deadlock.
    begin
      setting := set_config('lock_timeout', '5ms', true);
      gone := msal_logout.delete_range(p, up_to);
      setting := set_config('lock_timeout', waits, true);
    exception
      when lock_not_available then -- all of it is undone, with the setting
        gone := msal_logout.delete_unheld(p, up_to);
    end;
  end if;

  is_done := up_to is null and p.swept_to = 0;
  with ended as (
    delete from msal_logout.sessions s using unnest(gone) g
    where s.partition_key = any (array[g.partition_key]) and s.client_id is not distinct from g.client_id -- keeps sessions_row
    returning s.client_id, (s.issuer, s.sid, s.subject, s.home_account_id)::msal_logout.revoked_session as session
  ), revoked as (
    select e.client_id, array_agg(e.session) as sessions from ended e group by e.client_id
  ), accounts as materialized (
    select g.client_id, g.account_issuer, g.home_account_id, count(*) as rows from unnest(gone) g
    group by g.client_id, g.account_issuer, g.home_account_id
  ), finished as ( -- an account counts in the step that takes the last of its rows
    select count(*) as accounts
    from (
      select a.account_issuer, a.home_account_id from accounts a
      where a.home_account_id is not null
      group by a.account_issuer, a.home_account_id
    ) a
    where p.one_row_each or not exists (
      select from msal_logout.token_cache t
      where t.home_account_id = a.home_account_id -- keeps token_cache_account
        and t.account_issuer is not distinct from a.account_issuer
        and (p.client_id is null or t.client_id is not distinct from p.client_id)
        and t.generation - p.last_generation <= 0
      offset 0)
  ), counted as ( -- by app, with the steps before; in an app an account counts in each step that takes a row of it there
    select c.client_id, sum(c.accounts)::int as accounts, sum(c.sessions)::int as sessions, sum(c.rows)::int as rows
    from (
      select * from unnest(p.clients, p.client_accounts, p.client_sessions, p.client_rows)
        k (client_id, accounts, sessions, rows)
      union all
      select a.client_id, count(a.home_account_id), 0, sum(a.rows) from accounts a group by a.client_id
      union all
      select v.client_id, 0, cardinality(v.sessions), 0 from revoked v
    ) c
    group by c.client_id
  ), raised as ( -- as publish_revocations has it; after the record, since the record does not need it
    insert into msal_logout.apps as a (client_id, last_position)
    select v.client_id, cardinality(v.sessions) from revoked v order by v.client_id collate "C"
    on conflict (client_id) do update set last_position = a.last_position + excluded.last_position
    returning a.client_id, a.last_position
  ), published as (
    insert into msal_logout.revoked_sessions (client_id, last_position, sessions)
    select a.client_id, a.last_position, v.sessions from raised a join revoked v on v.client_id = a.client_id
  )
  update msal_logout.records r set
    one_row_each = p.one_row_each,
    swept_to = coalesce(up_to, 0),
    accounts = r.accounts + f.accounts,
    sessions = coalesce(c.sessions, 0),
    rows = coalesce(c.rows, 0),
    clients = coalesce(c.clients, r.clients),
    client_accounts = coalesce(c.client_accounts, r.client_accounts),
    client_sessions = coalesce(c.client_sessions, r.client_sessions),
    client_rows = coalesce(c.client_rows, r.client_rows),
    status = case when is_done then 'done' else 'running' end,
    finished_at = case when is_done then asked_at end
  from finished f, (
    select sum(c.sessions) as sessions, sum(c.rows) as rows, array_agg(c.client_id) as clients,
      array_agg(c.accounts) as client_accounts, array_agg(c.sessions) as client_sessions, array_agg(c.rows) as client_rows
    from counted c
  ) c
  where r.id = p.id;
  return case when is_done then 'done' when up_to is not null and gone is null then 'held' else 'more' end;
end
$$;
