-- Whether a sign-out in steps is at the account, and has yet to reach what it had up to that generation; `is_whole`: one that takes all of
-- it.
create function msal_logout.is_in_steps(
  account_issuer text, home_account_id text, generation bigint, is_whole boolean default false
) returns boolean
language plpgsql stable as $$
begin
  return exists (
    select from msal_logout.accounts_in_steps a
    where a.home_account_id = is_in_steps.home_account_id and a.account_issuer = is_in_steps.account_issuer
      and a.last_generation >= is_in_steps.generation and a.is_whole >= is_in_steps.is_whole);
end
$$;
