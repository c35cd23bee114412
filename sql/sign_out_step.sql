-- One step of an order that is carried out alone, since it may delete more than others can wait for: at most `max_deletions` rows and
-- sessions, in a transaction of their own. As of `sign_out`, but waits for locks as long as the connection allows.
-- Outcomes: 'more' (another step is due), else those of `sign_out`. The record stands from the first step on, as unfinished, with all that
-- was deleted so far: any process can go on. An account counts in an app with the last of its rows and sessions there.
create function msal_logout.sign_out_step(o msal_logout.signal_order, max_deletions int)
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
  lock_alone msal_logout.signal_order := o;
  is_claimed boolean;
  p msal_logout.records; -- of the steps before
  matches msal_logout.match[];
  matched msal_logout.matched_account[];
  deletions msal_logout.deletion[];
  room int; -- what may still be deleted
  setting text;
begin
  id := o.id;
  if current_setting('synchronous_commit') = 'off' then
    setting := set_config('synchronous_commit', 'on', true);
  end if;
  lock table msal_logout.issuer_groups in access share mode; -- an account that is found is that account until it is deleted

  -- An operator's key may stand for another request already: what is not carried out must revoke nothing.
  lock_alone.revoke_before := case when o.once and o.actor is not null then 0 else o.revoke_before end;
  -- The same order in another process has locked the same keys, or has claimed it, so the record of its step is there by now.
  perform msal_logout.lock_selectors(array[lock_alone]);
  is_claimed := msal_logout.claim_orders(array[o]) is not null;
  perform msal_logout.lock_keys(
    array_agg(m.account_issuer), array_agg('account=' || m.home_account_id), array_agg(m.revoke_before), array_agg(m.revoke_before),
    array_agg(m.remember_seconds))
  from unnest(msal_logout.named_accounts(array[lock_alone])) m;
  select r.* into p from msal_logout.records r where r.id = o.id;
  if o.once and (
    p.id is null and not is_claimed
    or p.id is not null and (p.status <> 'unfinished' or p.request_hash is distinct from o.request_hash)
  ) then
    outcome := 'duplicate';
    account_issuers := coalesce(p.account_issuers, '{}');
    account_ids := coalesce(p.account_ids, '{}');
    clients := '{}';
    client_accounts := '{}';
    client_sessions := '{}';
    client_rows := '{}';
    return next;
    return;
  end if;
  if p.status <> 'unfinished' then
    p := null;
  end if;
  perform msal_logout.lock_selectors(array[o]);

  matches := array(select m from msal_logout.match_sessions(array[o], max_deletions) m);
  matched := msal_logout.accounts_of(array[o], matches) || msal_logout.named_accounts(array[o]);
  if o.selector <> 'account' and o.purge_scope = 'account' then -- what led to an account may have gone since
    matched := array(
      select m from unnest(matched) m
      union
      select (o.id, true, k.account_issuer, k.home_account_id, o.revoke_before, o.remember_seconds, false)::msal_logout.matched_account
      from unnest(p.account_issuers, p.account_ids) k (account_issuer, home_account_id));
  end if;
  perform msal_logout.lock_keys(
    array_agg(m.account_issuer), array_agg('account=' || m.home_account_id),
    array_agg(case when m.is_named then m.revoke_before end), array_agg(m.revoke_before), array_agg(m.remember_seconds))
  from unnest(matched) m;
  if o.selector = 'account' then -- what is there of it, now that it is locked
    matches := array(select m from msal_logout.match_accounts(array[o], max_deletions) m);
    matched := msal_logout.accounts_of(array[o], matches);
  end if;

  if o.purge_scope = 'account' then
    deletions := msal_logout.delete_some(matched, matches, max_deletions);
  end if;
  room := max_deletions - coalesce(cardinality(deletions), 0);
  if room > 0 then
    deletions := deletions || msal_logout.delete_matches(matches[1:room]);
  end if;
  outcome := case
    when room = 0 or cardinality(matches) > least(room, max_deletions - 1) then 'more'
    when p.id is null and cardinality(matched) = 0 then 'unmatched'
    else 'done' end;

  select coalesce(array_agg(a.account_issuer), '{}'), coalesce(array_agg(a.home_account_id), '{}') into account_issuers, account_ids
  from (
    select k.account_issuer, k.home_account_id from unnest(p.account_issuers, p.account_ids) k (account_issuer, home_account_id)
    union
    select m.account_issuer, m.home_account_id from unnest(matched) m
  ) a;
  select coalesce(array_agg(c.client_id), '{}'), coalesce(array_agg(c.accounts), '{}'), coalesce(array_agg(c.sessions), '{}'),
    coalesce(array_agg(c.rows), '{}')
  into clients, client_accounts, client_sessions, client_rows
  from (
    select k.client_id, sum(k.accounts)::int as accounts, sum(k.sessions)::int as sessions, sum(k.rows)::int as rows
    from (
      select * from unnest(p.clients, p.client_accounts, p.client_sessions, p.client_rows) k (client_id, accounts, sessions, rows)
      union all
      select * from msal_logout.count_last(deletions)
    ) k
    group by k.client_id
  ) c;
  if o.record_unmatched or outcome <> 'unmatched' then
    insert into msal_logout.records as r (
      id, source, issuer, client_id, jti, sid, subject, home_account_id, tenant_id, object_id, revoke_before, reason, actor,
      request_hash, status, account_issuers, account_ids, total, accounts, sessions, rows, clients, client_accounts,
      client_sessions, client_rows, finished_at)
    values (
      o.id, o.source, nullif(o.issuer, ''), o.client_id, o.jti, o.sid, o.subject, o.home_account_id, o.tenant_id, o.object_id,
      o.revoke_before, o.reason, o.actor, o.request_hash, case outcome when 'more' then 'unfinished' else 'done' end,
      account_issuers, account_ids, cardinality(account_ids), cardinality(account_ids),
      (select coalesce(sum(n), 0) from unnest(client_sessions) n), (select coalesce(sum(n), 0) from unnest(client_rows) n),
      clients, client_accounts, client_sessions, client_rows, case when outcome <> 'more' then now() end)
    on conflict (id) do update set
      status = excluded.status, account_issuers = excluded.account_issuers, account_ids = excluded.account_ids,
      total = excluded.total, accounts = excluded.accounts, sessions = excluded.sessions, rows = excluded.rows,
      clients = excluded.clients, client_accounts = excluded.client_accounts, client_sessions = excluded.client_sessions,
      client_rows = excluded.client_rows, finished_at = excluded.finished_at
    where r.status = 'unfinished';
  end if;
  perform msal_logout.publish_revocations(deletions);
  return next;
end
$$;
