-- create_client NAME WEIGHT GROUP FIXED ENABLED LIMITS CLASS: FIXED is "1" if the configuration has the
-- group.
local name, weight, group, fixed, enabled, limits, class = unpack(ARGV, 4)
if exists('client', name) then return {'taken'} end
if not is_group(group, fixed) then return {'no_group'} end
local record = key_of('client', name)
call('HSET', record, 'weight', weight, 'group', group, 'enabled', enabled, 'class', class, 'created', now(), 'limits', limits)
call('ZADD', key_of('clients'), 0, name)
join(name, group)
log('client.create', 'client:' .. name)
return {'ok', call('HGETALL', record)}
