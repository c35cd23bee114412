-- Whether the caller may use a client id. One that is registered for no role is the owner's (`current_user` here, since
-- only `security definer` functions call this). Simple enough for the planner to put it in place of its call.
create function msal_logout.may_use(registered_role name) returns boolean
language sql stable as $$
  select pg_has_role(msal_logout.caller(), coalesce(registered_role, current_user), 'usage')
$$;
