-- Replaces an entry and its bucket when both are still what they were read as. An empty string stands for none.
--
-- KEYS: the entry, its bucket.
-- ARGV: 1 the entry as read, 2 as it is to be, 3 the bucket as read, 4 as it is to be.
for i = 1, 2 do
    if (redis.call('GET', KEYS[i]) or '') ~= ARGV[2 * i - 1] then return 0 end
end
if ARGV[1] ~= ARGV[2] then redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL') end
if ARGV[3] ~= ARGV[4] then redis.call('SET', KEYS[2], ARGV[4]) end
return 1
