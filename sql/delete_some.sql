-- Deletes at most so much of the accounts: rows first, then sessions, but not those that led to the accounts. A session leads every other
-- signal to its account, as long as a row of it is there; and these lead the next step to what is left.
create function msal_logout.delete_some(
  matched msal_logout.matched_account[], leads msal_logout.match[], max_deletions int
) returns msal_logout.deletion[]
language plpgsql as $$
declare
  gone_rows msal_logout.deletion[];
  gone_sessions msal_logout.deletion[];
begin
  with due as materialized (
    select m.id, t.client_id, t.partition_key, t.account_issuer, t.home_account_id
    from unnest(matched) m
    cross join lateral (
      select * from msal_logout.token_cache t
      where t.home_account_id = m.home_account_id and t.account_issuer is not distinct from m.account_issuer -- keeps token_cache_account
      limit max_deletions offset 0
    ) t
    limit max_deletions
  ), gone as (
    delete from msal_logout.token_cache t using due d
    where t.partition_key = any (array[d.partition_key]) and t.client_id is not distinct from d.client_id -- keeps the primary key
      and t.account_issuer is not distinct from d.account_issuer and t.home_account_id is not distinct from d.home_account_id
    returning (d.id, t.client_id, t.account_issuer, t.home_account_id, true, null)::msal_logout.deletion as d
  )
  select array_agg(g.d) into gone_rows from gone g;
  with due as materialized (
    select m.id, s.client_id, s.partition_key, s.issuer, s.session_key, s.account_issuer, s.home_account_id
    from unnest(matched) m
    cross join lateral (
      select * from msal_logout.sessions s
      where s.home_account_id = m.home_account_id and s.account_issuer is not distinct from m.account_issuer -- keeps sessions_account
        and (s.issuer, s.session_key, s.client_id, s.partition_key) not in (
          select l.issuer, l.session_key, l.client_id, l.partition_key from unnest(leads) l where l.session_key is not null)
      limit max_deletions offset 0
    ) s
    limit max_deletions - coalesce(cardinality(gone_rows), 0)
  ), gone as (
    delete from msal_logout.sessions s using due d
    where s.partition_key = any (array[d.partition_key]) and s.client_id is not distinct from d.client_id -- keeps sessions_row
      and s.session_key is not distinct from d.session_key and s.issuer is not distinct from d.issuer
      and s.account_issuer is not distinct from d.account_issuer and s.home_account_id is not distinct from d.home_account_id
    returning (d.id, s.client_id, s.account_issuer, s.home_account_id, false,
      (s.issuer, s.sid, s.subject, s.home_account_id)::msal_logout.revoked_session)::msal_logout.deletion as d
  )
  select array_agg(g.d) into gone_sessions from gone g;
  return gone_rows || gone_sessions;
end
$$;
