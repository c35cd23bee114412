-- Deletes at most so much of the accounts: rows first, then sessions, but not those that led to the accounts. A session leads every other
-- signal to its account, as long as a row of it is there; and these lead the next step to what is left. Fewer than so much: nothing
-- else is left. What others deleted while this waited for their locks does not count, so it looks again.
-- `spared`: the generations that stay, and the row of a session of these stays with it.
create function msal_logout.delete_some(
  matched msal_logout.matched_account[], leads msal_logout.match[], max_deletions int, spared int8range
) returns msal_logout.deletion[]
language plpgsql as $$
declare
  all_gone msal_logout.deletion[] := '{}';
  now_gone msal_logout.deletion[];
  room int := max_deletions;
  found int;
begin
  while room > 0 loop
    with newer as materialized (
      select s.client_id, s.partition_key
      from unnest(matched) m
      cross join lateral (
        select * from msal_logout.sessions s
        where s.home_account_id = m.home_account_id and s.generation >= lower(spared) -- keeps sessions_account
          and s.generation <@ spared
        offset 0
      ) s
    ), due as materialized (
      select m.id, t.client_id, t.partition_key, t.account_issuer, t.home_account_id
      from unnest(matched) m
      cross join lateral (
        select * from msal_logout.token_cache t
        where t.home_account_id = m.home_account_id and t.account_issuer is not distinct from m.account_issuer -- keeps token_cache_account
          and not t.generation <@ spared and (t.client_id, t.partition_key) not in (select n.client_id, n.partition_key from newer n)
        limit room offset 0
      ) t
      limit room
    ), gone as (
      delete from msal_logout.token_cache t using due d
      where t.partition_key = any (array[d.partition_key]) and t.client_id is not distinct from d.client_id -- keeps the primary key
        and t.account_issuer is not distinct from d.account_issuer and t.home_account_id is not distinct from d.home_account_id
        and not t.generation <@ spared
      returning (d.id, t.client_id, t.account_issuer, t.home_account_id, true, null)::msal_logout.deletion as d
    )
    select array_agg(g.d), (select count(*) from due) into now_gone, found from gone g;
    all_gone := all_gone || now_gone;
    exit when found < room;
    room := max_deletions - cardinality(all_gone);
  end loop;
  room := max_deletions - cardinality(all_gone);
  while room > 0 loop
    with due as materialized (
      select m.id, s.client_id, s.partition_key, s.issuer, s.session_key, s.account_issuer, s.home_account_id
      from unnest(matched) m
      cross join lateral (
        select * from msal_logout.sessions s
        where s.home_account_id = m.home_account_id and s.account_issuer is not distinct from m.account_issuer -- keeps sessions_account
          and not s.generation <@ spared
          and (s.issuer, s.session_key, s.client_id, s.partition_key) not in (
            select l.issuer, l.session_key, l.client_id, l.partition_key from unnest(leads) l where l.session_key is not null)
        limit room offset 0
      ) s
      limit room
    ), gone as (
      delete from msal_logout.sessions s using due d
      where s.partition_key = any (array[d.partition_key]) and s.client_id is not distinct from d.client_id -- keeps sessions_row
        and s.session_key is not distinct from d.session_key and s.issuer is not distinct from d.issuer
        and s.account_issuer is not distinct from d.account_issuer and s.home_account_id is not distinct from d.home_account_id
        and not s.generation <@ spared
      returning (d.id, s.client_id, s.account_issuer, s.home_account_id, false,
        (s.issuer, s.sid, s.subject, s.home_account_id)::msal_logout.revoked_session)::msal_logout.deletion as d
    )
    select array_agg(g.d), (select count(*) from due) into now_gone, found from gone g;
    all_gone := all_gone || now_gone;
    exit when found < room;
    room := max_deletions - cardinality(all_gone);
  end loop;
  return nullif(all_gone, '{}');
end
$$;
