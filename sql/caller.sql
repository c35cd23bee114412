-- Who calls: inside a `security definer` function `current_user` is the owner, and `session_user` ignores `set role`.
create function msal_logout.caller() returns name
language sql stable as $$
  select coalesce(nullif(current_setting('role'), 'none'), session_user)::name
$$;
