-- Forgets a number, and remembers that for as long as a request may take that saw it before.
-- KEYS[1] its code  KEYS[2] until when it is at its limit  ARGV[1] how long, in milliseconds
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[2], '', 'PX', ARGV[1])
return 1
