-- submit ID CLIENT WEIGHT BYTES ATTEMPT: a request joins its client's line. Its leases are
-- numbered from ATTEMPT + 1: who submits anew what this store has forgotten counts on.
-- Idempotent by ID. Cost: O(log waiting); lifting is O(log clients).
verbs.submit = function(id, client, weight, bytes, attempt)
  if call('EXISTS', request_key(id)) == 1 then return end
  local seq = call('HINCRBY', POOL, 'seq', 1)
  call('HSET', request_key(id), 'client', client, 'router', SENDER, 'weight', weight,
       'bytes', bytes, 'seq', seq, 'since', NOW, 'attempt', attempt)
  call('SADD', PREFIX .. 'routed:' .. SENDER, id)
  enqueue(client, id, seq)
end
