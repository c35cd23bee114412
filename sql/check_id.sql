-- Ids are bounded so that any of them fits into an index.
create function msal_logout.check_id(name text, value text) returns void
language plpgsql immutable as $$
begin
  if value is null or value = '' then
    raise exception '"%" must not be empty', name using errcode = 'invalid_parameter_value';
  end if;
  if octet_length(value) > 1024 then
    raise exception '"%" must have 1024 bytes or fewer: it has %', name, octet_length(value)
      using errcode = 'invalid_parameter_value';
  end if;
end
$$;
