-- Notes of the accounts of an order in steps those after one position, up to another: what is there of them now goes, and what comes later
-- stays. Returns the newest generation that goes. After the accounts' locks, and before the time: a login that held one is stored. What
-- was restored, or came by another clock, may lie ahead of the time.
create function msal_logout.note_accounts(id uuid, after bigint, up_to bigint) returns bigint
language plpgsql as $$
#variable_conflict use_column
declare
  noted_at bigint := (extract(epoch from clock_timestamp()) * 1000000)::bigint;
  newest bigint;
begin
  with noted as (
    update msal_logout.accounts_in_steps a set last_generation = greatest(
      noted_at,
      (select max(t.generation) from msal_logout.token_cache t where t.home_account_id = a.home_account_id), -- keeps token_cache_account
      (select max(s.generation) from msal_logout.sessions s where s.home_account_id = a.home_account_id)) -- keeps sessions_account
    where a.id = note_accounts.id and a.position > note_accounts.after and a.position <= note_accounts.up_to
    returning a.last_generation
  )
  select max(n.last_generation) into newest from noted n;
  return newest;
end
$$;
