-- Priority classes with floors: fairness/classes.py tells the rules, and does the same.
--
-- A class is an outermost group, "class:NAME/". The header names those that there are, the highest
-- first; what each is owed is kept with the pool's numbers, so it costs no command. O(classes) a
-- charge and a decision; nothing where there are none.
local class_names, class_ranks, floors, owed = {}, {}, {}, {}
if CLASSES ~= '' then
  for floor, name in CLASSES:gmatch('(%S+) (%S+)\n') do
    class_names[#class_names + 1] = name
    class_ranks[name] = #class_names
    floors[name] = tonumber(floor)
  end
  for name, due in (pool.owed or ''):gmatch('(%S+) (%S+)\n') do owed[name] = tonumber(due) end
end

local function class_waits(name) return groups:get(name).waiting > 0 end

-- The outermost group that a client stands in, "/" for none.
local function outermost_of(client) return client.parent:match('^[^/]*/') end

-- Service is charged to a client in this outermost group.
local function charge_classes(outermost, service)
  for _, name in ipairs(class_names) do
    local floor = floors[name]
    if floor > 0 then
      local due = (owed[name] or 0) + floor * service
      if name == outermost then due = due - service end
      owed[name] = due > 0 and not class_waits(name) and 0 or due
    end
  end
end

-- A request of a client in this outermost group is served; it is not charged yet.
local function serve_class(outermost)
  if (owed[outermost] or 0) < 0 then owed[outermost] = 0 end
end

-- What the order among classes goes by, the lowest first: -owed, else the rank.
local function class_key(name)
  local due = owed[name] or 0
  return due > 0 and -due or class_ranks[name]
end

-- The class that goes next, or nil.
local function next_class()
  local first, lowest
  for _, name in ipairs(class_names) do
    if class_waits(name) then
      local key = class_key(name)
      if not first or key < lowest then first, lowest = name, key end
    end
  end
  return first
end

-- Who is in no class that there is now is in the first: what to put before the names of its groups,
-- and how much to cut off them ("class:NAME/" of former times).
local function class_for(outermost)
  if not class_names[1] or (outermost and floors[outermost]) then return '', 0 end
  return class_names[1], outermost and outermost:sub(1, 6) == 'class:' and #outermost or 0
end

local function write_owed()
  if not class_names[1] then return end
  local told = ''
  for _, name in ipairs(class_names) do
    if floors[name] > 0 then told = told .. name .. ' ' .. text(owed[name] or 0) .. '\n' end
  end
  pool.owed = told
end
