-- What a step of a sign-out deleted, by app. In an app an account counts if nothing of it that goes is left there.
-- Pairs are compared, as in `delete_some`.
create function msal_logout.count_last(deletions msal_logout.deletion[])
returns table (client_id text, accounts int, sessions int, rows int)
language plpgsql stable as $$
#variable_conflict use_column
begin
  return query
  select d.client_id, count(*) filter (where not d.is_left)::int, sum(d.sessions)::int, sum(d.rows)::int
  from (
    select d.client_id, d.sessions, d.rows,
      exists (
        select from msal_logout.sessions s
        where s.home_account_id = d.home_account_id and s.account_issuer is not distinct from d.account_issuer -- keeps sessions_account
          and s.client_id is not distinct from d.client_id and (s.home_account_id, s.generation) <= (d.home_account_id, a.last_generation)
        offset 0
      ) or exists (
        select from msal_logout.token_cache t
        where t.home_account_id = d.home_account_id and t.account_issuer is not distinct from d.account_issuer
          and t.client_id is not distinct from d.client_id and (t.home_account_id, t.generation) <= (d.home_account_id, a.last_generation)
          and t.partition_key <> '' -- keeps token_cache_account: the others, which bear the account too, do not bear this
        offset 0
      ) as is_left
    from (
      select d.id, d.client_id, d.account_issuer, d.home_account_id,
        count(*) filter (where not d.is_row) as sessions, count(*) filter (where d.is_row) as rows
      from unnest(deletions) d
      group by d.id, d.client_id, d.account_issuer, d.home_account_id
    ) d
    cross join lateral (
      select a.last_generation from msal_logout.accounts_in_steps a
      where a.home_account_id = d.home_account_id and a.account_issuer = d.account_issuer and a.id is not distinct from d.id -- keeps the primary key
      offset 0
    ) a
  ) d
  group by d.client_id;
end
$$;
