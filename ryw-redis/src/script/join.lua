-- Joins marks into one subject's entry, on the server, in one step. The layout is that of `layout.rs`.
--
-- KEYS: the entry, its bucket.
-- ARGV: 1 the server's incarnation, 2 a generation to start with, 3 how long a write may still be on its way (ms),
--       4 how long an entry lives (ms), 5 how long a period is (ms), 6 the marks to join, 7 whether the server evicts (one byte).
local UNKNOWN, HELD, LOST = 1, 2, 4
local MAX_POSITIONS, U32 = 16, 4294967296

local function has(flags, flag) return flags % (2 * flag) >= flag end

-- Times are milliseconds below 2^53, so that doubles hold them.
local function read_time(bytes, at)
    local high, low = struct.unpack('>I4I4', bytes, at)
    return high * U32 + low
end
local function write_time(time) return struct.pack('>I4I4', math.floor(time / U32), time % U32) end

-- A position is a branch (cluster and epoch, 12 bytes) and an offset (8 bytes). Offsets do not fit into doubles, so they
-- are compared half by half; and never as strings, whose order depends on the server's locale.
local function is_larger(a, b)
    local a_high, a_low = struct.unpack('>I4I4', a)
    local b_high, b_low = struct.unpack('>I4I4', b)
    return a_high > b_high or (a_high == b_high and a_low > b_low)
end
local function is_smaller_branch(a, b)
    local a1, a2, a3 = struct.unpack('>I4I4I4', a)
    local b1, b2, b3 = struct.unpack('>I4I4I4', b)
    if a1 ~= b1 then return a1 < b1 end
    if a2 ~= b2 then return a2 < b2 end
    if a3 ~= b3 then return a3 < b3 end
    return #a < #b
end
local END = string.rep('\255', 8)

-- Positions: a table from branch to offset. The end of an epoch is kept besides, under its branch and one byte more: a sample
-- stands for it that may be older than what was joined since. Returns whether there was no room.
local function add(positions, branch, offset)
    local known = positions[branch]
    if known and not is_larger(offset, known) then return false end
    positions[branch] = offset
    if known then return false end
    local count, smallest = 0, branch
    for other in pairs(positions) do
        count = count + 1
        if is_smaller_branch(other, smallest) then smallest = other end
    end
    if count <= MAX_POSITIONS then return false end
    positions[smallest] = nil
    return true
end
local function add_all(positions, others)
    local full = false
    for branch, offset in pairs(others) do full = add(positions, branch, offset) or full end
    return full
end
local function read_positions(bytes, at, stop)
    local positions = {}
    while at < stop do
        local branch, offset = string.sub(bytes, at, at + 11), string.sub(bytes, at + 12, at + 19)
        positions[offset == END and branch .. 'E' or branch] = offset
        at = at + 20
    end
    return positions
end
local function write_positions(positions)
    local parts = {}
    for branch, offset in pairs(positions) do
        parts[#parts + 1] = string.sub(branch, 1, 12)
        parts[#parts + 1] = offset
    end
    return table.concat(parts)
end
local function read_list(bytes, at)
    local stop = at + 1 + 20 * string.byte(bytes, at)
    return read_positions(bytes, at + 1, stop), stop
end
local function write_list(positions)
    local bytes = write_positions(positions)
    return string.char(#bytes / 20) .. bytes
end
local function has_end(positions)
    for _, offset in pairs(positions) do
        if offset == END then return true end
    end
    return false
end

-- What `layout.rs` would refuse to read is refused here in the same way, and is no outage.
local function is_entry(bytes)
    if #bytes < 5 then return false end
    local flags = string.byte(bytes, 1)
    local head = 5 + (has(flags, HELD) and 8 or 0) + (has(flags, LOST) and 8 or 0)
    return #bytes >= head and (#bytes - head) % 20 == 0
end
local function is_bucket(bytes)
    local at = 30
    for list = 1, 3 do
        if list > 1 then at = at + 1 end
        local count = string.byte(bytes, at)
        if not count then return false end
        at = at + 1 + 20 * count
    end
    return at == #bytes + 1
end
local malformed = redis.error_reply('MALFORMED a key of ryw-redis has something else in it')

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local hold, ttl, period_length = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local period = math.floor(now / period_length) % U32

-- The marks to join.
local flags, at, lost = string.byte(ARGV[6], 1), 2, nil
if has(flags, LOST) then lost, at = string.sub(ARGV[6], at, at + 7), at + 8 end
local update = read_positions(ARGV[6], at, #ARGV[6] + 1)
local update_unknown = has(flags, UNKNOWN)

-- The bucket: what subjects without an entry of this generation are held to.
local bucket = redis.call('GET', KEYS[2])
if bucket and not is_bucket(bucket) then return malformed end
local generation, doubts, floor, floor_unknown, this, this_unknown, last, last_unknown
if bucket then
    local bucket_flags, incarnation
    bucket_flags, generation, doubts = struct.unpack('>BI4I4', bucket)
    local written = struct.unpack('>I4', bucket, 10)
    incarnation = string.sub(bucket, 14, 29)
    if incarnation == ARGV[1] then
        floor_unknown = has(bucket_flags, UNKNOWN)
        local next
        floor, next = read_list(bucket, 30)
        this_unknown = string.byte(bucket, next) == 1
        this, next = read_list(bucket, next + 1)
        last_unknown = string.byte(bucket, next) == 1
        last = read_list(bucket, next + 1)
        -- Entries live for two periods at least, so what was written in the one before the last may be gone.
        local forgotten = false
        if written ~= period then
            if add_all(floor, last) or last_unknown or has_end(last) then forgotten = true end
            last, last_unknown, this, this_unknown = this, this_unknown, {}, false
            if written + 1 ~= period then
                if add_all(floor, last) or last_unknown or has_end(last) then forgotten = true end
                last, last_unknown = {}, false
            end
            for branch, offset in pairs(floor) do
                if offset == END then floor[branch] = nil end
            end
        end
        if forgotten then floor_unknown, doubts = true, (doubts + 1) % 16777216 end
    else
        -- Another run of the server: it may have lost anything.
        bucket, generation = nil, (generation + 1) % U32
    end
else
    generation = struct.unpack('>I4', ARGV[2])
end
if not bucket then
    doubts, floor, floor_unknown = 0, {}, true
    this, this_unknown, last, last_unknown = {}, false, {}, false
end

-- The entry.
local entry = redis.call('GET', KEYS[1])
if entry and not is_entry(entry) then return malformed end
local positions, unknown, held, of = {}, false, 0, nil
if entry then
    local entry_flags
    entry_flags, of = struct.unpack('>BI4', entry)
    unknown, at = has(entry_flags, UNKNOWN), 6
    if has(entry_flags, HELD) then held, at = read_time(entry, at), at + 8 end
    if has(entry_flags, LOST) then
        local told = string.sub(entry, at, at + 7)
        if not lost or is_larger(told, lost) then lost = told end
        at = at + 8
    end
    positions = read_positions(entry, at, #entry + 1)
end
if of ~= generation then
    -- It starts at the floor: an earlier entry of the subject may be what raised it. What the floor holds from before a
    -- failover may be somebody else's loss: the entry is unknown instead.
    for branch, offset in pairs(floor) do
        local inherited = not update_unknown
        for other in pairs(update) do
            if string.sub(other, 1, 8) == string.sub(branch, 1, 8)
                and is_smaller_branch(branch, string.sub(other, 1, 12)) then
                inherited = false
            end
        end
        if not inherited or add(positions, branch, offset) then unknown = true end
    end
    unknown = unknown or floor_unknown
    -- What it had may have been evicted a moment ago.
    if not entry and string.byte(ARGV[7]) == 1 then unknown = true end
end
if add_all(positions, update) or update_unknown then unknown = true end
-- Rounded up, as the time was rounded down.
if hold > 0 then held = math.max(held, now + hold + 1) end

if add_all(this, update) then this_unknown = true end
this_unknown = this_unknown or unknown

local written = (unknown and UNKNOWN or 0) + (held > 0 and HELD or 0) + (lost and LOST or 0)
redis.call('SET', KEYS[1],
    struct.pack('>BI4', written, generation) .. (held > 0 and write_time(held) or '') .. (lost or '')
        .. write_positions(positions),
    'PX', ttl + math.max(hold, held - now))
redis.call('SET', KEYS[2],
    struct.pack('>BI4I4', floor_unknown and UNKNOWN or 0, generation, doubts) .. struct.pack('>I4', period) .. ARGV[1] .. write_list(floor)
        .. string.char(this_unknown and 1 or 0) .. write_list(this)
        .. string.char(last_unknown and 1 or 0) .. write_list(last))
return bucket and 0 or 1
