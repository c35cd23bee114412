-- Deletes at most so much of the accounts of an order in steps, from after one position up to another: rows first, then sessions. A
-- session leads every other signal to its account, as long as a row of it is there. Fewer than so much: nothing else is left. What others
-- deleted while this waited for their locks does not count, so it looks again.
-- Pairs are compared: a bound of `generation` alone could be looked up in any index that it is in.
create function msal_logout.delete_some(id uuid, after bigint, up_to bigint, max_deletions int) returns msal_logout.deletion[]
language plpgsql as $$
#variable_conflict use_column
declare
  all_gone msal_logout.deletion[] := '{}';
  now_gone msal_logout.deletion[];
  room int := max_deletions;
  found int;
begin
  while room > 0 loop
    with due as materialized (
      select t.client_id, t.partition_key, t.account_issuer, t.home_account_id, a.last_generation
      from msal_logout.accounts_in_steps a
      cross join lateral (
        select * from msal_logout.token_cache t
        where t.home_account_id = a.home_account_id and t.account_issuer is not distinct from a.account_issuer -- keeps token_cache_account
          and (t.home_account_id, t.generation) <= (a.home_account_id, a.last_generation)
        limit room offset 0
      ) t
      where a.id = delete_some.id and a.position > delete_some.after and a.position <= delete_some.up_to -- keeps accounts_in_steps_order
      limit room
    ), gone as (
      delete from msal_logout.token_cache t using due d
      where t.partition_key = any (array[d.partition_key]) and t.client_id is not distinct from d.client_id -- keeps the primary key
        and t.account_issuer is not distinct from d.account_issuer and t.home_account_id is not distinct from d.home_account_id
        and t.generation - d.last_generation <= 0
      returning (delete_some.id, t.client_id, t.account_issuer, t.home_account_id, true, null)::msal_logout.deletion as d
    )
    select array_agg(g.d), (select count(*) from due) into now_gone, found from gone g;
    all_gone := all_gone || now_gone;
    exit when found < room;
    room := max_deletions - cardinality(all_gone);
  end loop;
  room := max_deletions - cardinality(all_gone);
  while room > 0 loop
    with due as materialized (
      select s.client_id, s.partition_key, s.issuer, s.session_key, s.account_issuer, s.home_account_id, a.last_generation
      from msal_logout.accounts_in_steps a
      cross join lateral (
        select * from msal_logout.sessions s
        where s.home_account_id = a.home_account_id and s.account_issuer is not distinct from a.account_issuer -- keeps sessions_account
          and (s.home_account_id, s.generation) <= (a.home_account_id, a.last_generation)
        limit room offset 0
      ) s
      where a.id = delete_some.id and a.position > delete_some.after and a.position <= delete_some.up_to -- keeps accounts_in_steps_order
      limit room
    ), gone as (
      delete from msal_logout.sessions s using due d
      where s.session_key = any (array[d.session_key]) -- keeps the primary key, with all of its columns: see delete_matches
        and (s.issuer, s.client_id, s.partition_key) >= (d.issuer, d.client_id, d.partition_key)
        and (s.issuer, s.client_id, s.partition_key) <= (d.issuer, d.client_id, d.partition_key)
        and s.account_issuer is not distinct from d.account_issuer and s.home_account_id is not distinct from d.home_account_id
        and s.generation - d.last_generation <= 0
      returning (delete_some.id, s.client_id, s.account_issuer, s.home_account_id, false,
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
