-- One step of an order that is carried out alone, since it may delete more than others can wait for: at most `max_deletions` rows and
-- sessions, in a transaction of their own. As of `sign_out`, but waits for each lock so many milliseconds, or as long as the connection
-- allows.
-- Outcomes: 'more' (another step is due), else those of `sign_out`. The record stands from the first step on, as unfinished, with all that
-- was deleted so far, and the order: any process can go on. An account counts in an app with the last of its rows and sessions there.
--
-- The first step writes down all accounts that the order matches, and notes them: under their locks, what is there of them goes, and what
-- comes later stays. From then on an account is found by its note alone, also if what led to it has gone. If more accounts match than others
-- can wait for, the first step writes them down, and the next ones note some each, before any deletes. An account that is not noted yet is
-- as before the order: a login into it goes with the rest, but if the order's own keys reject it.
-- A login into a noted account ends its row, if all of the account goes, or gives it a new generation: then it stays with that session, the
-- others of it go, and no save of theirs comes into it.
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
  max_noted constant int := 10000; -- accounts in one transaction, which hold up their logins for some tenths of a second
  key_order msal_logout.signal_order := o;
  is_claimed boolean;
  earlier msal_logout.records; -- the steps before
  is_first boolean;
  last_generation bigint; -- the newest that goes
  listed bigint; -- the accounts of the order
  noted_to bigint; -- the last of them that is noted
  swept_to bigint; -- the last of them that is over, if all of an account goes
  page_end bigint;
  matches msal_logout.match[];
  deletions msal_logout.deletion[];
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
  perform msal_logout.lock_accounts(msal_logout.named_accounts(array[o]));

  is_first := earlier.noted_to is null;
  listed := case when is_first then msal_logout.list_accounts(o) else earlier.total end;
  last_generation := coalesce(earlier.last_generation, 0);
  noted_to := coalesce(earlier.noted_to, 0);
  swept_to := coalesce(earlier.swept_to, 0);
  outcome := case
    when listed = 0 then 'unmatched'
    when is_first and listed > max_noted or not is_first and noted_to < listed then 'more' end;
  if noted_to < listed and not (is_first and listed > max_noted) then
    page_end := least(noted_to + max_noted, listed);
    perform msal_logout.lock_listed(o, noted_to, page_end);
    last_generation := greatest(last_generation, msal_logout.note_accounts(o.id, noted_to, page_end));
    noted_to := page_end;
  end if;

  if outcome is not null then
    deletions := null; -- it comes in another step
  elsif o.purge_scope = 'account' then
    page_end := least(swept_to + greatest(max_deletions / 2, 1), listed); -- most have a row and a session
    if not is_first then
      perform msal_logout.lock_listed(o, swept_to, page_end);
    end if;
    deletions := msal_logout.delete_some(o.id, swept_to, page_end, max_deletions);
    swept_to := case
      when cardinality(deletions) < max_deletions or deletions is null then page_end
      else coalesce(msal_logout.find_left(o.id, swept_to, page_end) - 1, page_end) end;
    outcome := case when swept_to < listed then 'more' end;
  else
    matches := array(
      select m from msal_logout.match_sessions(array[o], max_deletions, true) m
      union all
      select m from msal_logout.match_accounts(array[o], max_deletions, true) m);
    if not is_first then
      perform msal_logout.lock_accounts(msal_logout.accounts_of(array[o], matches));
    end if;
    deletions := msal_logout.delete_matches(matches[1:max_deletions], true);
    outcome := case when cardinality(matches) >= max_deletions then 'more' end;
  end if;
  -- To write down the ids of many takes long, and needs none of their locks: it is a step of its own.
  outcome := coalesce(outcome, case when listed > max_noted and deletions is not null then 'more' else 'done' end);

  select coalesce(array_agg(c.client_id), '{}'), coalesce(array_agg(c.accounts), '{}'), coalesce(array_agg(c.sessions), '{}'),
    coalesce(array_agg(c.rows), '{}')
  into clients, client_accounts, client_sessions, client_rows
  from (
    select k.client_id, sum(k.accounts)::int as accounts, sum(k.sessions)::int as sessions, sum(k.rows)::int as rows
    from (
      select * from unnest(earlier.clients, earlier.client_accounts, earlier.client_sessions, earlier.client_rows)
        k (client_id, accounts, sessions, rows)
      union all
      select * from msal_logout.count_last(deletions)
    ) k
    group by k.client_id
  ) c;
  if outcome = 'done' then
    with former as (
      delete from msal_logout.accounts_in_steps a where a.id = o.id returning a.account_issuer, a.home_account_id
    )
    select array_agg(f.account_issuer), array_agg(f.home_account_id) into account_issuers, account_ids from former f;
  else -- some, while it is not done: each step would write all of them anew
    select coalesce(array_agg(a.account_issuer), '{}'), coalesce(array_agg(a.home_account_id), '{}') into account_issuers, account_ids
    from msal_logout.accounts_in_steps a
    where a.id = o.id and is_first and a.position > 0 and a.position <= max_deletions; -- keeps accounts_in_steps_order
  end if;
  if o.record_unmatched or outcome <> 'unmatched' then
    insert into msal_logout.records as r (
      id, source, issuer, client_id, jti, sid, subject, home_account_id, tenant_id, object_id, revoke_before, reason, actor,
      request_hash, status, account_issuers, account_ids, total, accounts, sessions, rows, clients, client_accounts,
      client_sessions, client_rows, last_generation, noted_to, swept_to, order_in_steps, stepped_at, finished_at)
    values (
      o.id, o.source, nullif(o.issuer, ''), o.client_id, o.jti, o.sid, o.subject, o.home_account_id, o.tenant_id, o.object_id,
      o.revoke_before, o.reason, o.actor, o.request_hash, case outcome when 'more' then 'unfinished' else 'done' end,
      account_issuers, account_ids,
      case outcome when 'more' then listed else cardinality(account_ids) end,
      case outcome when 'more' then swept_to else cardinality(account_ids) end,
      (select coalesce(sum(n), 0) from unnest(client_sessions) n), (select coalesce(sum(n), 0) from unnest(client_rows) n),
      clients, client_accounts, client_sessions, client_rows,
      case outcome when 'more' then last_generation end, case outcome when 'more' then noted_to end,
      case outcome when 'more' then swept_to end, case outcome when 'more' then o end, clock_timestamp(),
      case when outcome <> 'more' then now() end)
    on conflict (id) do update set
      status = excluded.status,
      account_issuers = case excluded.status when 'done' then excluded.account_issuers else r.account_issuers end,
      account_ids = case excluded.status when 'done' then excluded.account_ids else r.account_ids end,
      total = excluded.total, accounts = excluded.accounts, sessions = excluded.sessions, rows = excluded.rows,
      clients = excluded.clients, client_accounts = excluded.client_accounts, client_sessions = excluded.client_sessions,
      client_rows = excluded.client_rows, last_generation = excluded.last_generation,
      noted_to = excluded.noted_to, swept_to = excluded.swept_to, order_in_steps = excluded.order_in_steps,
      stepped_at = excluded.stepped_at, finished_at = excluded.finished_at
    where r.status = 'unfinished';
  end if;
  perform msal_logout.publish_revocations(deletions);
  return next;
end
$$;
