-- submit ID CLIENT WEIGHT BYTES ATTEMPT: a request joins its client's line. Its leases are
-- numbered from ATTEMPT + 1: who submits anew what this store has forgotten counts on.
-- Idempotent by ID; in a repeated call, a request that is not here any more is over.
-- Cost: O(log waiting); lifting is O(log clients).
verbs.submit = function(id, client, weight, bytes, attempt)
  if REPEATED or call('EXISTS', request_key(id)) == 1 then return end
  pool.seq = pool.seq + 1
  call('HSET', request_key(id), 'client', client, 'router', SENDER, 'weight', weight,
       'bytes', bytes, 'seq', pool.seq, 'attempt', attempt)
  call('SADD', routed_key(SENDER), id)
  enqueue(client, id, pool.seq)
end
