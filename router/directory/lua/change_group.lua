-- change_group PATH WEIGHT LIMITS: "" leaves it as it is.
local path, weight, limits = unpack(ARGV, 4)
if not exists('group', path) then return {'unknown'} end
local record = key_of('group', path)
if weight ~= '' then call('HSET', record, 'weight', weight) end
if limits ~= '' then call('HSET', record, 'limits', limits) end
log('group.change', 'group:' .. path)
return {'ok', call('HGETALL', record)}
