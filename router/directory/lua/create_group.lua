-- create_group PATH WEIGHT ORGANISATION FIXED LIMITS: FIXED is "1" if the configuration has the
-- organisation ("" for a group that is one).
local path, weight, organisation, fixed, limits = unpack(ARGV, 4)
if exists('group', path) then return {'taken'} end
if not is_group(organisation, fixed) then return {'no_organisation'} end
local record = key_of('group', path)
call('HSET', record, 'weight', weight, 'created', now(), 'limits', limits)
call('ZADD', key_of('groups'), 0, path)
log('group.create', 'group:' .. path)
return {'ok', call('HGETALL', record)}
