-- change_client NAME WEIGHT ENABLED MOVE GROUP FIXED LIMITS RECLASS CLASS: "" leaves weight, enabled or
-- limits as they are; MOVE "1": to GROUP, or out of any (""); RECLASS "1": to CLASS, or the first ("").
local name, weight, enabled, move, group, fixed, limits, reclass, class = unpack(ARGV, 4)
if not exists('client', name) then return {'unknown'} end
if move == '1' and not is_group(group, fixed) then return {'no_group'} end
local record = key_of('client', name)
if weight ~= '' then call('HSET', record, 'weight', weight) end
if limits ~= '' then call('HSET', record, 'limits', limits) end
if enabled ~= '' then call('HSET', record, 'enabled', enabled) end
if reclass == '1' then call('HSET', record, 'class', class) end
if move == '1' then
  leave(name, call('HGET', record, 'group'))
  join(name, group)
  call('HSET', record, 'group', group)
end
log('client.change', 'client:' .. name)
return {'ok', call('HGETALL', record)}
