-- One step of an order that is carried out alone, since it may delete more than others can wait for: at most `max_deletions` rows and
-- sessions, in a transaction of their own. As of `sign_out`, but waits for each lock so many milliseconds, or as long as the connection
-- allows.
-- Outcomes: 'more' (another step is due), else those of `sign_out`. The record stands from the first step on, as unfinished, with all that
-- was deleted so far, and the order: any process can go on. An account counts in an app with the last of its rows and sessions there.
--
-- All that was there at the first step goes, and what came later stays. A login goes into a row that is due and gives it a new generation:
-- then it stays with that session, the others of it go, and no save of theirs comes into it. So does a row of an account that no step has
-- matched yet, but for its generation.
create function msal_logout.sign_out_step(o msal_logout.signal_order, max_deletions int, lock_wait_ms int default null)
returns table (
  id uuid, outcome text, account_issuers text[], account_ids text[],
  -- Side by side: what went in an app.
  clients text[], client_accounts int[], client_sessions int[], client_rows int[]
)
language plpgsql security definer set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set jit = off
set enable_seqscan = off set enable_bitmapscan = off set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  longest_step constant bigint := 120000000; -- twice what a statement of the service may take, in microseconds
  key_order msal_logout.signal_order := o;
  is_claimed boolean;
  earlier msal_logout.records; -- the steps before
  last_generation bigint; -- what was there at the first step
  spared int8range; -- the generations of what came since
  matches msal_logout.match[];
  matched msal_logout.matched_account[];
  deletions msal_logout.deletion[];
  room int; -- what may still be deleted
  new_accounts int := 0;
  over_accounts int := 0;
  setting text;
begin
  id := o.id;
  if current_setting('synchronous_commit') = 'off' then
    setting := set_config('synchronous_commit', 'on', true);
  end if;
  if lock_wait_ms is not null then
    setting := set_config('lock_timeout', lock_wait_ms || 'ms', true);
  end if;
  lock table msal_logout.issuer_groups in access share mode; -- an account that is found is that account until it is deleted

  -- An operator's key may stand for another request already: what is not carried out must revoke nothing.
  key_order.revoke_before := case when o.once and o.actor is not null then 0 else o.revoke_before end;
  -- The same order in another process has locked the same keys, or has claimed it, so the record of its step is there by now.
  perform msal_logout.lock_selectors(array[key_order]);
  is_claimed := msal_logout.claim_orders(array[o]) is not null;
  perform msal_logout.lock_accounts(msal_logout.named_accounts(array[key_order]));
  select r.* into earlier from msal_logout.records r where r.id = o.id;
  -- Once it is done it does not begin anew, also if it may be carried out twice: to a first step all that came since is old.
  if earlier.status <> 'unfinished'
    or o.once and (earlier.id is null and not is_claimed or earlier.id is not null and earlier.request_hash is distinct from o.request_hash)
  then
    outcome := 'duplicate';
    account_issuers := coalesce(earlier.account_issuers, '{}');
    account_ids := coalesce(earlier.account_ids, '{}');
    clients := '{}';
    client_accounts := '{}';
    client_sessions := '{}';
    client_rows := '{}';
    return next;
    return;
  end if;
  perform msal_logout.lock_selectors(array[o]);

  -- Up to what a login may be given while this step waits: what lies further ahead was restored, or came by another clock.
  spared := case
    when earlier.id is null then 'empty'
    else int8range(earlier.last_generation, msal_logout.new_generation() + longest_step, '(]') end;
  matches := array(select m from msal_logout.match_sessions(array[o], max_deletions, spared) m);
  matched := msal_logout.accounts_of(array[o], matches) || msal_logout.named_accounts(array[o]);
  if earlier.id is not null and o.selector <> 'account' and o.purge_scope = 'account' then -- what led to an account may have gone since
    matched := array(
      select m from unnest(matched) m
      union
      select (o.id, true, a.account_issuer, a.home_account_id, o.revoke_before, o.remember_seconds, false)::msal_logout.matched_account
      from msal_logout.accounts_in_steps a where a.id = o.id and not a.is_over);
  end if;
  perform msal_logout.lock_accounts(matched);
  if o.selector = 'account' then -- what is there of it, now that it is locked
    matches := array(select m from msal_logout.match_accounts(array[o], max_deletions, spared) m);
    matched := msal_logout.accounts_of(array[o], matches);
  end if;

  -- First the locks, then the time: a login that held one is stored. What was restored, or came by another clock, may lie ahead of it.
  last_generation := coalesce(earlier.last_generation, greatest(
    (extract(epoch from clock_timestamp()) * 1000000)::bigint,
    (
      select max(greatest(
        (select max(t.generation) from msal_logout.token_cache t where t.home_account_id = m.home_account_id),
        (select max(s.generation) from msal_logout.sessions s where s.home_account_id = m.home_account_id)))
      from unnest(matched) m
    )));

  if o.purge_scope = 'account' then
    deletions := msal_logout.delete_some(matched, matches, max_deletions, spared);
  end if;
  room := max_deletions - coalesce(cardinality(deletions), 0);
  if room > 0 then
    deletions := deletions || msal_logout.delete_matches(matches[1:room], spared);
  end if;
  outcome := case
    when room = 0 or cardinality(matches) > least(room, max_deletions - 1) then 'more'
    when earlier.id is null and cardinality(matched) = 0 then 'unmatched'
    else 'done' end;

  if outcome = 'more' then
    insert into msal_logout.accounts_in_steps (id, account_issuer, home_account_id, last_generation, is_over)
    select distinct m.id, m.account_issuer, m.home_account_id, last_generation, false from unnest(matched) m
    on conflict (home_account_id, account_issuer, id) do nothing;
    get diagnostics new_accounts = row_count;
    if room > 0 then
      update msal_logout.accounts_in_steps a set is_over = true where a.id = o.id and not a.is_over;
      get diagnostics over_accounts = row_count;
    end if;
    account_issuers := array(select m.account_issuer from unnest(matched) m);
    account_ids := array(select m.home_account_id from unnest(matched) m);
  else
    with former as (
      delete from msal_logout.accounts_in_steps a where a.id = o.id returning a.account_issuer, a.home_account_id
    )
    select coalesce(array_agg(a.account_issuer), '{}'), coalesce(array_agg(a.home_account_id), '{}') into account_issuers, account_ids
    from (
      select f.account_issuer, f.home_account_id from former f
      union
      select m.account_issuer, m.home_account_id from unnest(matched) m
    ) a;
  end if;
  select coalesce(array_agg(c.client_id), '{}'), coalesce(array_agg(c.accounts), '{}'), coalesce(array_agg(c.sessions), '{}'),
    coalesce(array_agg(c.rows), '{}')
  into clients, client_accounts, client_sessions, client_rows
  from (
    select k.client_id, sum(k.accounts)::int as accounts, sum(k.sessions)::int as sessions, sum(k.rows)::int as rows
    from (
      select * from unnest(earlier.clients, earlier.client_accounts, earlier.client_sessions, earlier.client_rows)
        k (client_id, accounts, sessions, rows)
      union all
      select * from msal_logout.count_last(deletions, spared)
    ) k
    group by k.client_id
  ) c;
  if o.record_unmatched or outcome <> 'unmatched' then
    insert into msal_logout.records as r (
      id, source, issuer, client_id, jti, sid, subject, home_account_id, tenant_id, object_id, revoke_before, reason, actor,
      request_hash, status, account_issuers, account_ids, total, accounts, sessions, rows, clients, client_accounts,
      client_sessions, client_rows, last_generation, order_in_steps, stepped_at, finished_at)
    values (
      o.id, o.source, nullif(o.issuer, ''), o.client_id, o.jti, o.sid, o.subject, o.home_account_id, o.tenant_id, o.object_id,
      o.revoke_before, o.reason, o.actor, o.request_hash, case outcome when 'more' then 'unfinished' else 'done' end,
      account_issuers, account_ids,
      case outcome when 'more' then coalesce(earlier.total, 0) + new_accounts else cardinality(account_ids) end,
      case outcome when 'more' then coalesce(earlier.accounts, 0) + over_accounts else cardinality(account_ids) end,
      (select coalesce(sum(n), 0) from unnest(client_sessions) n), (select coalesce(sum(n), 0) from unnest(client_rows) n),
      clients, client_accounts, client_sessions, client_rows,
      case outcome when 'more' then last_generation end, case outcome when 'more' then o end, clock_timestamp(),
      case when outcome <> 'more' then now() end)
    on conflict (id) do update set
      status = excluded.status,
      -- Those of the first step until it is done: each step would write all of them anew.
      account_issuers = case excluded.status when 'done' then excluded.account_issuers else r.account_issuers end,
      account_ids = case excluded.status when 'done' then excluded.account_ids else r.account_ids end,
      total = excluded.total, accounts = excluded.accounts, sessions = excluded.sessions, rows = excluded.rows,
      clients = excluded.clients, client_accounts = excluded.client_accounts, client_sessions = excluded.client_sessions,
      client_rows = excluded.client_rows, last_generation = excluded.last_generation, order_in_steps = excluded.order_in_steps,
      stepped_at = excluded.stepped_at, finished_at = excluded.finished_at
    where r.status = 'unfinished';
  end if;
  perform msal_logout.publish_revocations(deletions);
  return next;
end
$$;
