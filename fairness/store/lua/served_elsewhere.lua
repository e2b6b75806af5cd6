-- served_elsewhere CLIENT WEIGHT SERVICE DEBT [WEIGHT GROUP]..: the client has received so much more
-- in another pool (SERVICE is what that is worth here), and so is owed less in this one. Counted once
-- for each numbered call.
--
-- A counter is raised no further than DEBT, for each live replica, above those who wait: what one had
-- elsewhere while nobody here missed it holds it back for a while, not for as long as it had it.
-- O(log clients), for each level of groups.
speaks_of.served_elsewhere = {client = 1}

local function raise(node, amount, debt)
  begin(node)
  local most = math.max(node.counter, level(parent_of(node)) + debt * pool.servers)
  set_counter(node, math.min(node.counter + amount, most))
end

verbs.served_elsewhere = function(name, weight, service, debt, ...)
  service, debt = tonumber(service), tonumber(debt)
  if REPEATED or service == 0 then return end
  local client = clients:get(name)
  if client.waiting == 0 and client.running == 0 then join_groups(client, ...) end
  raise(client, service / tonumber(weight), debt)
  local group = parent_of(client)
  while group ~= pool do
    raise(group, service / group.weight, debt)
    group = parent_of(group)
  end
end
