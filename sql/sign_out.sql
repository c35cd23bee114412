-- Carries out a batch of orders in one transaction: keys, sessions, rows, records, revoked sessions. A tombstone is written
-- even if nothing matches, since the login may be under way.
-- `batch`: an array of the members of `signal_order`. `patient`: waits for locks as long as the connection allows.
-- The planner is kept to one plan, since planning anew for each batch takes longer than the work. Few statements: each takes
-- some 50 us to begin.
create function msal_logout.sign_out(batch jsonb, patient boolean default true)
returns table (
  id uuid, outcome text, account_issuers text[], account_ids text[], sessions bigint, rows bigint, by_client jsonb
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set jit = off
set enable_seqscan = off set enable_bitmapscan = off set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  orders msal_logout.signal_order[];
  fresh msal_logout.signal_order[];
  has_named boolean; -- accounts are named
  has_actor boolean; -- operators' orders
  matches msal_logout.match[];
  has_partial boolean; -- rows that another live session uses are spared
  -- Side by side: each order with each account that it matched.
  matched_ids uuid[];
  matched_issuers text[];
  matched_accounts text[];
  -- Side by side: each account whose rows all go, with the first of its orders.
  whole_ids uuid[];
  whole_issuers text[];
  whole_accounts text[];
  deletions msal_logout.deletion[];
begin
  if current_setting('synchronous_commit') = 'off' then
    perform set_config('synchronous_commit', 'on', true); -- what is answered by 200 is on disk, also if the role is set otherwise
  end if;
  if not patient then
    perform set_config('lock_timeout', '100ms', true); -- a lock that somebody holds is the matter of one order
  end if;
  lock table msal_logout.issuer_groups in access share mode; -- an account that is found is that account until it is deleted
  select array_agg(o), bool_or(o.selector = 'account'), bool_or(o.actor is not null) into orders, has_named, has_actor
  from jsonb_populate_recordset(null::msal_logout.signal_order, batch) o;

  -- Locks 2: beside the sid the subject, since a login stored without a sid is ended by it.
  perform msal_logout.lock_keys(
    array_agg(k.issuer), array_agg(k.key), array_agg(case when o.actor is null then o.revoke_before end), null,
    array_agg(o.remember_seconds))
  from unnest(orders) o
  cross join lateral (values
    (o.issuer, 'sid=' || o.sid),
    (o.issuer, case o.selector when 'subject' then 'all=' else 'sub=' end || o.subject),
    ('', 'object=' || o.tenant_id || '/' || o.object_id)
  ) k (issuer, key)
  where o.remember_seconds > 0 or exists (
    select from msal_logout.sessions s where s.issuer = o.issuer and s.session_key = 'sid=' || o.sid offset 0);
  fresh := msal_logout.claim_orders(orders);
  if has_actor then
    -- An operator's key may stand for another request already: what is not carried out must revoke nothing.
    perform msal_logout.lock_keys(
      array_agg(k.issuer), array_agg(k.key), array_agg(o.revoke_before), null, array_agg(o.remember_seconds))
    from unnest(fresh) o
    cross join lateral (values
      (o.issuer, 'sid=' || o.sid),
      (o.issuer, case o.selector when 'subject' then 'all=' else 'sub=' end || o.subject),
      ('', 'object=' || o.tenant_id || '/' || o.object_id)
    ) k (issuer, key)
    where o.actor is not null;
  end if;

  select array_agg(m) into matches from msal_logout.match_sessions(fresh) m;
  if matches is not null or has_named then
    -- Locks 3: the accounts.
    perform msal_logout.lock_keys(
      array_agg(a.account_issuer), array_agg('account=' || a.home_account_id), array_agg(a.revoke_before),
      array_agg(a.sidless_revoke_before), array_agg(a.remember_seconds))
    from (
      select m.account_issuer, m.home_account_id, null::bigint as revoke_before, o.revoke_before as sidless_revoke_before,
        o.remember_seconds
      from (select distinct m.id, m.account_issuer, m.home_account_id from unnest(matches) m) m
      join unnest(fresh) o on o.id = m.id
      union all
      -- By an issuer: its bare subject, and the id from client info of its group. Every login of the id has the lock of ''.
      select k.account_issuer, o.home_account_id, k.revoke_before, k.revoke_before, o.remember_seconds
      from unnest(fresh) o
      cross join lateral (values
        ('', case when coalesce(o.issuer, '') = '' then o.revoke_before end),
        (nullif(o.issuer, ''), o.revoke_before),
        (msal_logout.issuer_group(nullif(o.issuer, '')), o.revoke_before)
      ) k (account_issuer, revoke_before)
      where o.selector = 'account' and k.account_issuer is not null
    ) a;
  end if;
  if has_named then
    select matches || array_agg(m) into matches from msal_logout.match_accounts(fresh) m;
  end if;

  if matches is not null then
    select array_agg(a.id), array_agg(a.account_issuer), array_agg(a.home_account_id),
      array_agg(a.id) filter (where a.is_first), array_agg(a.account_issuer) filter (where a.is_first),
      array_agg(a.home_account_id) filter (where a.is_first), bool_or(not a.is_whole)
    into matched_ids, matched_issuers, matched_accounts, whole_ids, whole_issuers, whole_accounts, has_partial
    from (
      select d.*,
        d.is_whole
          and row_number() over (partition by d.is_whole, d.account_issuer, d.home_account_id order by d.id) = 1 as is_first
      from (select distinct m.id, m.is_whole, m.account_issuer, m.home_account_id from unnest(matches) m) d
    ) a;
    if whole_ids is not null then
      deletions := msal_logout.delete_rows(whole_ids, whole_issuers, whole_accounts)
        || msal_logout.delete_sessions(whole_ids, whole_issuers, whole_accounts);
    end if;
    if has_partial then
      deletions := deletions || msal_logout.delete_matches(array(select m from unnest(matches) m where not m.is_whole));
    end if;
  end if;

  return query
  select r.id, case when cardinality(r.account_ids) = 0 then 'unmatched' else 'done' end,
    r.account_issuers, r.account_ids, r.sessions, r.rows, r.by_client
  from msal_logout.record_orders(fresh, matched_ids, matched_issuers, matched_accounts, deletions) r;
  if coalesce(cardinality(fresh), 0) < cardinality(orders) then
    -- Duplicates are answered with what was matched then, so that an order can go on to another node.
    return query
    select distinct on (o.id) o.id, 'duplicate', coalesce(r.account_issuers, '{}'), coalesce(r.account_ids, '{}'),
      0::bigint, 0::bigint, '{}'::jsonb
    from unnest(orders) o
    left join lateral (
      select r.account_issuers, r.account_ids from msal_logout.records r where r.id = o.id offset 0
    ) r on true
    where not exists (select from unnest(fresh) f where f.id = o.id);
  end if;
  perform msal_logout.publish_revocations(deletions);
end
$$;
