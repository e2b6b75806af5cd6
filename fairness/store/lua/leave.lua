-- leave: the sender's last word. What it leaves behind is swept next time, not when it has been
-- silent for long.
verbs.leave = function()
  call('ZADD', SENDERS, 0, SENDER)
end
