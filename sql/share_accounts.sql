-- Has issuers of several origins share accounts: for the owner of the schema, where one user is known at two of them by one id, as at
-- Entra External ID by its own host and by a host of the company's. Logins wait while it moves what is stored.
create function msal_logout.share_accounts(variadic issuers text[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  begun_at timestamptz := clock_timestamp();
  usual_lock_timeout text := current_setting('lock_timeout');
  former text[];
  common text;
begin
  if cardinality(issuers) < 2 or array_position(issuers, null) is not null then
    raise exception 'name two issuers or more' using errcode = 'invalid_parameter_value';
  end if;
  -- Every login and every sign-out holds the groups until it has committed, and all that come later wait behind this; then for the rows that
  -- this moves, which an app may hold without the groups. It may leave its transaction open: so this tries again and again, and waits for
  -- each lock for a moment.
  loop
    begin
      perform set_config('lock_timeout', '50ms', true);
      lock table msal_logout.issuer_groups in access exclusive mode;
      select array_agg(distinct msal_logout.issuer_group(i)) into former from unnest(issuers) i;
      common := msal_logout.issuer_group(issuers[1]);
      update msal_logout.issuer_groups g set issuer_group = common where g.issuer_group = any (former);
      insert into msal_logout.issuer_groups (origin, issuer_group)
      select f.origin, common from (select regexp_replace(f, '/[*]$', '') as origin from unnest(former) f) f
      on conflict (origin) do update set issuer_group = excluded.issuer_group;

      insert into msal_logout.tombstones as t (issuer, key, revoke_before, sidless_revoke_before, expires_at)
      select common, d.key, max(d.revoke_before), max(d.sidless_revoke_before), max(d.expires_at)
      from msal_logout.tombstones d
      where d.issuer = any (former) and d.key like 'account=%'
      group by d.key
      order by d.key
      on conflict (issuer, key) do update set
        revoke_before = greatest(t.revoke_before, excluded.revoke_before),
        sidless_revoke_before = greatest(t.sidless_revoke_before, excluded.sidless_revoke_before),
        expires_at = greatest(t.expires_at, excluded.expires_at);
      -- One account that was two is over, and noted, when both are: it goes on at the later position.
      insert into msal_logout.accounts_in_steps (id, position, account_issuer, home_account_id, is_whole, last_generation)
      select a.id, max(a.position), common, a.home_account_id, bool_or(a.is_whole),
        case when bool_and(a.last_generation is not null) then max(a.last_generation) end
      from msal_logout.accounts_in_steps a where a.account_issuer = any (former)
      group by a.id, a.home_account_id
      on conflict (home_account_id, account_issuer, id) do update set position = excluded.position, last_generation = excluded.last_generation;
      delete from msal_logout.accounts_in_steps a where a.account_issuer = any (former) and a.account_issuer <> common;
      update msal_logout.token_cache t set account_issuer = common where t.account_issuer = any (former) and t.account_issuer <> common;
      update msal_logout.sessions s set account_issuer = common where s.account_issuer = any (former) and s.account_issuer <> common;
      perform set_config('lock_timeout', usual_lock_timeout, true);
      exit;
    exception when lock_not_available then -- all of it is undone, and lets the others go on
      if clock_timestamp() > begun_at + interval '1 minute' then
        raise exception 'transactions are under way that do not end' using errcode = 'lock_not_available',
          hint = 'see pg_stat_activity for transactions that are left open, and try again at a quiet hour';
      end if;
    end;
    perform pg_sleep(0.5);
  end loop;
end
$$;
