-- What is before and behind the filter that asks a rate limit service, `place` "first" and "second": requests come by
-- the first, answers by the second. Envoy adds whatever headers the service says, and appends to those that are there;
-- it may add those that say nothing of who calls, of where a message is for or ends, of what was found to be true or of
-- what policies go by; the table lists the latter two. What changes another one goes no further. Before this is what it
-- has in common with others.

local failed = "a rate limit service failed\n"

-- told is what the table says: the `service`, and what is `reserved`.
local function told(handle, what) return handle:filterContext():get(what) end

local function say(handle, why)
  pcall(function() handle:logErr("rate limit service " .. told(handle, "service") .. ": " .. tostring(why)) end)
end

local function store(handle) return handle:streamInfo():dynamicMetadata() end

-- added says what is wrong with what the service added; nothing else has changed.
local function added(handle, noted, also)
  local why, grown = wrong(handle, noted, nil, also)
  return why or grown and miswritten(handle) or nil
end

local function request_to(handle) note(handle, "request", nil, told(handle, "reserved")) end

local function request_from(handle)
  local noted = (store(handle):get(notes) or {}).request
  local why = added(handle, noted, told(handle, "reserved"))
  if not why then store(handle):set(notes, "passed", "yes") end
  return why
end

-- Headers that say where an answer ends that Envoy makes itself. Its length is Envoy's own, whatever the service says.
local framing = { ["connection"] = true, ["transfer-encoding"] = true, ["upgrade"] = true }

-- refusal says what is wrong with what Envoy answers in place of the application, as it has the service's headers.
local function refusal(handle)
  if not status(handle:headers():get(":status")) then return "it changed a status" end
  for _, h in ipairs(list(handle:headers())) do
    local k = h[1]
    if framing[spelled(k)] or sub(k, 1, 1) == ":" and k ~= ":status" then
      return "it changed a header that is not for it to change"
    end
    if k ~= ":status" and not named(k) then return "it wrote a header that can't be one" end
  end
  return miswritten(handle)
end

local function answer_from(handle)
  local noted = store(handle):get(notes) or {}
  if noted.passed then return added(handle, noted.answer) end
  -- Where the service was not asked, it has no say in the answer.
  return noted.request and refusal(handle) or nil
end

if place == "first" then
  function envoy_on_request(handle)
    local ok, why = pcall(request_to, handle)
    if not ok then
      say(handle, why)
      handle:respond({ [":status"] = "500" }, failed)
    end
  end

  function envoy_on_response(handle)
    local ok, why = pcall(answer_from, handle)
    if ok and not why then return end
    say(handle, why)
    local headers = handle:headers()
    local upgraded = find(headers:get(":status") or "", "^101")
    for _, h in ipairs(list(headers)) do
      if h[1] ~= ":status" then headers:remove(h[1]) end
    end
    headers:replace(":status", "500")
    -- What follows an upgrade has no end to wait for; and what has no body may answer HEAD.
    local body = not upgraded and handle:body()
    if body then body:setBytes(failed) end
  end
else
  function envoy_on_request(handle)
    local ok, why = pcall(request_from, handle)
    if ok and not why then return end
    say(handle, why)
    handle:respond({ [":status"] = "500" }, failed)
  end

  function envoy_on_response(handle)
    -- Without a note the first script lets nothing pass that the service was asked about.
    local ok, why = pcall(note, handle, "answer")
    if not ok then say(handle, why) end
  end
end
