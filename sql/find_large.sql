-- Which of these orders would delete more than so much. Counted no further; it changes nothing, and locks nothing.
create function msal_logout.find_large(orders msal_logout.signal_order[], max_deletions int) returns setof uuid
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set jit = off
set enable_seqscan = off set enable_bitmapscan = off set enable_mergejoin = off
as $$
declare
  matches msal_logout.match[];
begin
  matches := array(
    select m from msal_logout.match_sessions(orders, max_deletions + 1) m
    union all
    select m from msal_logout.match_accounts(orders, max_deletions + 1) m);
  return query
  select m.id from unnest(matches) m group by m.id having count(*) > max_deletions
  union
  select a.id
  from unnest(msal_logout.accounts_of(orders, matches)) a
  cross join lateral (
    select count(*) as n from (
      select from msal_logout.sessions s
      where s.home_account_id = a.home_account_id and s.account_issuer is not distinct from a.account_issuer -- keeps sessions_account
      limit max_deletions + 1
    ) s
  ) s
  cross join lateral (
    select count(*) as n from (
      select from msal_logout.token_cache t
      where t.home_account_id = a.home_account_id and t.account_issuer is not distinct from a.account_issuer
        and t.partition_key <> '' -- keeps token_cache_account: the others, which bear the account too, do not bear this
      limit max_deletions + 1
    ) t
  ) t
  where a.is_whole
  group by a.id
  having sum(s.n + t.n) > max_deletions;
end
$$;
