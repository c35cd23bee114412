-- Carries out a batch of orders, each id once, in one transaction: keys, sessions, rows, records, revoked sessions. A tombstone
-- is written even if nothing matches, since the login may be under way.
-- `patient`: waits for locks as long as the connection allows.
--
-- Each statement sees what was committed while the one before it waited for a lock: tombstones, duplicates, look-up, locks of
-- the accounts, and all that is deleted, recorded and published. No more of them, and few parts in each: to begin one takes a
-- lone sign-out longer than what it does. What few orders need stands under an `if`.
-- The planner is kept to one plan, since planning anew for each batch takes longer than the work.
create function msal_logout.sign_out(orders msal_logout.signal_order[], patient boolean default true)
returns table (
  id uuid, outcome text, account_issuers text[], account_ids text[],
  -- Side by side: what went in an app, of one account.
  clients text[], client_sessions int[], client_rows int[]
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set jit = off
set enable_seqscan = off set enable_bitmapscan = off set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  fresh msal_logout.signal_order[]; -- the orders that are not duplicates
  has_claims boolean; -- of which a record does not guard against duplicates
  has_named boolean; -- accounts are named
  has_others boolean; -- not a session of which every row of the account goes
  has_partial boolean; -- rows that another live session uses are spared
  matches msal_logout.match[]; -- of the others
  named msal_logout.match[];
  matched msal_logout.matched_account[];
  spared msal_logout.deletion[];
  setting text;
begin
  if current_setting('synchronous_commit') = 'off' then
    -- What is answered by 200 is on disk, also if the role is set otherwise.
    setting := set_config('synchronous_commit', 'on', true);
  end if;
  if not patient then
    setting := set_config('lock_timeout', '100ms', true); -- a lock that somebody holds is the matter of one order
  end if;
  lock table msal_logout.issuer_groups in access share mode; -- an account that is found is that account until it is deleted

  -- Locks 2, as lock_selectors has them.
  insert into msal_logout.tombstones as t (issuer, key, revoke_before, expires_at)
  select k.issuer, k.key, max(case when o.once and o.actor is not null then 0 else o.revoke_before end),
    now() + interval '1 second' * max(o.remember_seconds)
  from unnest(orders) o
  cross join lateral (values
    (o.issuer, 'sid=' || o.sid),
    (o.issuer, case o.selector when 'subject' then 'all=' else 'sub=' end || o.subject),
    ('', 'object=' || o.tenant_id || '/' || o.object_id)
  ) k (issuer, key)
  where k.key is not null and (o.remember_seconds > 0 or exists (
    select from msal_logout.sessions s where s.issuer = o.issuer and s.session_key = 'sid=' || o.sid offset 0))
  group by k.issuer, k.key
  order by k.key collate "C", k.issuer collate "C"
  on conflict (key, issuer) do update set
    revoke_before = greatest(t.revoke_before, excluded.revoke_before),
    expires_at = greatest(t.expires_at, excluded.expires_at);

  -- The same token in another transaction has locked the same keys, so its record is there by now.
  select array_agg(o), bool_or(o.once and (o.actor is not null or not o.record_unmatched)), bool_or(o.selector = 'account'),
    bool_or(o.selector <> 'session' or o.purge_scope <> 'account'), bool_or(o.purge_scope <> 'account')
  into fresh, has_claims, has_named, has_others, has_partial
  from unnest(orders) o
  where not exists (
    select from msal_logout.records r
    where r.id = o.id and (o.once or r.status = 'unfinished') -- what goes on in steps spares who has signed in since
    offset 0);
  if has_claims then
    fresh := msal_logout.claim_orders(fresh);
    -- An operator's key may stand for another request already: what is not carried out must revoke nothing.
    perform msal_logout.lock_selectors(array(select o from unnest(fresh) o where o.actor is not null));
  end if;

  select array_agg(
    (m.id, true, m.account_issuer, m.home_account_id, m.revoke_before, m.remember_seconds, false)::msal_logout.matched_account)
  into matched
  from (
    select distinct o.id, s.account_issuer, s.home_account_id, o.revoke_before, o.remember_seconds
    from unnest(fresh) o
    -- As match_sessions has it: to call that takes a lone sign-out longer than the look-up.
    cross join lateral (values ('sid=' || o.sid, o.spares_newer), ('sub=' || o.subject, true)) k (session_key, spares_newer)
    cross join lateral (
      select s.account_issuer, s.home_account_id from msal_logout.sessions s
      where s.issuer = o.issuer and s.session_key = k.session_key -- keeps the primary key
        and (not k.spares_newer or s.issued_at <= o.revoke_before)
      offset 0
    ) s
    where o.selector = 'session' and o.purge_scope = 'account'
  ) m;
  if has_others then
    matches := array(
      select m from msal_logout.match_sessions(array(
        select o from unnest(fresh) o where o.selector <> 'session' or o.purge_scope <> 'account')) m);
    matched := matched || msal_logout.accounts_of(fresh, matches);
  end if;
  if has_named then
    matched := matched || msal_logout.named_accounts(fresh);
  end if;

  -- Locks 3: the accounts.
  if matched is not null then
    insert into msal_logout.tombstones as t (issuer, key, revoke_before, sidless_revoke_before, expires_at)
    select m.account_issuer, 'account=' || m.home_account_id, coalesce(max(m.revoke_before) filter (where m.is_named), 0),
      coalesce(max(m.revoke_before), 0), now() + interval '1 second' * max(m.remember_seconds)
    from unnest(matched) m
    group by m.account_issuer, m.home_account_id
    order by m.home_account_id collate "C", m.account_issuer collate "C"
    on conflict (key, issuer) do update set
      revoke_before = greatest(t.revoke_before, excluded.revoke_before),
      sidless_revoke_before = greatest(t.sidless_revoke_before, excluded.sidless_revoke_before),
      expires_at = greatest(t.expires_at, excluded.expires_at);
  end if;

  if has_named then -- what is there of them, now that they are locked
    named := array(select m from msal_logout.match_accounts(fresh) m);
    matches := matches || named;
    matched := array(select m from unnest(matched) m where not m.is_named) || msal_logout.accounts_of(fresh, named);
  end if;
  if has_partial then
    spared := msal_logout.delete_matches(array(select m from unnest(matches) m where not m.is_whole));
  end if;

  -- Locks 4 and 5: rows, sessions, positions of the apps.
  return query
  with gone as (
    -- `= any (array[...])` and `is not distinct from` leave a hash join nothing to hash by, for which it would read an index
    -- whole: they keep token_cache_account, and below sessions_account.
    delete from msal_logout.token_cache t using unnest(matched) m
    where m.is_whole
      and t.home_account_id = any (array[m.home_account_id]) and t.account_issuer is not distinct from m.account_issuer
    returning m.id, t.client_id, t.account_issuer, t.home_account_id
  ), ended as (
    delete from msal_logout.sessions s using unnest(matched) m
    where (select count(*) from gone) >= 0 -- after the rows: that is the order of locks
      and m.is_whole and s.home_account_id = any (array[m.home_account_id])
      and s.account_issuer is not distinct from m.account_issuer
    returning m.id, s.client_id, s.account_issuer, s.home_account_id,
      (s.issuer, s.sid, s.subject, s.home_account_id)::msal_logout.revoked_session as session
  ), counted as (
    select a.id, sum(a.sessions) as sessions, sum(a.rows) as rows,
      array_agg(a.client_id) as clients, array_agg(a.sessions) as client_sessions, array_agg(a.rows) as client_rows
    from (
      select d.id, d.client_id, sum(d.sessions)::int as sessions, sum(d.rows)::int as rows
      from (
        select g.id, g.client_id, g.account_issuer, g.home_account_id, 0 as sessions, 1 as rows from gone g
        union all
        select e.id, e.client_id, e.account_issuer, e.home_account_id, 1, 0 from ended e
        union all
        select s.id, s.client_id, s.account_issuer, s.home_account_id, (not s.is_row)::int, s.is_row::int from unnest(spared) s
      ) d
      group by d.id, d.client_id, d.account_issuer, d.home_account_id
    ) a
    group by a.id
  ), results as materialized (
    select o.*, coalesce(m.account_issuers, '{}') as account_issuers, coalesce(m.account_ids, '{}') as account_ids,
      coalesce(c.sessions, 0) as sessions, coalesce(c.rows, 0) as rows, coalesce(c.clients, '{}') as clients,
      coalesce(c.client_sessions, '{}') as client_sessions, coalesce(c.client_rows, '{}') as client_rows
    from unnest(fresh) o
    left join (
      select m.id, array_agg(m.account_issuer) as account_issuers, array_agg(m.home_account_id) as account_ids
      from unnest(matched) m
      group by m.id
    ) m on m.id = o.id
    left join counted c on c.id = o.id
  ), recorded as (
    insert into msal_logout.records (
      id, source, issuer, client_id, jti, sid, subject, home_account_id, tenant_id, object_id, revoke_before, reason, actor,
      request_hash, account_issuers, account_ids, total, accounts, sessions, rows, clients, client_sessions, client_rows,
      finished_at)
    select r.id, r.source, nullif(r.issuer, ''), r.client_id, r.jti, r.sid, r.subject, r.home_account_id, r.tenant_id,
      r.object_id, r.revoke_before, r.reason, r.actor, r.request_hash, r.account_issuers, r.account_ids, cardinality(r.account_ids),
      cardinality(r.account_ids), r.sessions, r.rows, r.clients, r.client_sessions, r.client_rows,
      now()
    from results r
    where r.record_unmatched or cardinality(r.account_ids) > 0
    on conflict (id) do nothing
  ), revoked as ( -- as publish_revocations has it
    select e.client_id, array_agg(e.session) as sessions
    from (
      select e.client_id, e.session from ended e
      union all
      select s.client_id, s.session from unnest(spared) s where not s.is_row
    ) e
    group by e.client_id
  ), raised as (
    insert into msal_logout.apps as a (client_id, last_position)
    select r.client_id, cardinality(r.sessions) from revoked r order by r.client_id collate "C"
    on conflict (client_id) do update set last_position = a.last_position + excluded.last_position
    returning a.client_id, a.last_position
  ), published as (
    insert into msal_logout.revoked_sessions (client_id, last_position, sessions)
    select a.client_id, a.last_position, r.sessions from raised a join revoked r on r.client_id = a.client_id
  )
  select r.id, case when cardinality(r.account_ids) = 0 then 'unmatched' else 'done' end,
    r.account_issuers, r.account_ids, r.clients, r.client_sessions, r.client_rows
  from results r;

  if coalesce(cardinality(fresh), 0) < cardinality(orders) then
    -- Duplicates are answered with what was matched then, so that an order can go on to another node. One is 'unfinished' while
    -- `sign_out_step` is at it.
    return query
    select o.id, case r.status when 'unfinished' then r.status else 'duplicate' end,
      coalesce(r.account_issuers, '{}'), coalesce(r.account_ids, '{}'), '{}'::text[], '{}'::int[], '{}'::int[]
    from unnest(orders) o
    left join lateral (
      select r.status, r.account_issuers, r.account_ids from msal_logout.records r where r.id = o.id offset 0
    ) r on true
    where not exists (select from unnest(fresh) f where f.id = o.id);
  end if;
end
$$;
