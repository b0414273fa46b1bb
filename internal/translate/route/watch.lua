-- What is before and behind the module of an HTTPExtension, `place` "first" and "second": requests come by the first,
-- answers by the second. Either notes what no module may change, and the other one refuses what was changed. What the
-- module answers by itself it says in headers, which the second one makes an answer of. `name` is the extension's, and
-- `unframed` that the module is shown the body of what comes by here on its way to it. What fails here lets nothing pass,
-- where Envoy would log it and go on. Envoy also goes on without a module that its thread could not start: so a module
-- changes header `mark` from `unmarked` where it is `asked` first, in the request or the answer. Before this is what it
-- has in common with others.

local longest_value, longest_body = 65536, 1024 * 1024

local function written(header, value)
  return named(header) and #value <= longest_value and not find(value, unreadable)
end

-- What a module answers may have another status than the application's answer.
local code = ":status"

local function say(handle, why) handle:logErr("HTTPExtension " .. name .. ": " .. tostring(why)) end

local function changed(handle, of, but)
  local store = handle:streamInfo():dynamicMetadata()
  local noted = (store:get(notes) or {})[of]
  store:set(notes, of, "")
  local why = wrong(handle, noted, but) or miswritten(handle)
  if why then return why end
  for _, v in pairs(handle:headers()) do
    if #v > longest_value then why = "it wrote a header that is too long" end
  end
  return why
end

-- expect has a module that is asked here mark what it is shown.
local function expect(headers, at)
  if asked == at then headers:replace(mark, unmarked) end
end

-- absent says that no module was asked here that should have been.
local function absent(headers, at)
  local said = headers:get(mark)
  headers:remove(mark)
  if asked == at and said == unmarked then return "this thread of the proxy could not start the module" end
end

-- answered is what a module answers by itself, in headers of the request; nil if it doesn't.
local function answered(headers)
  local with, body = { [code] = headers:get(code) }, headers:get(":body")
  if not with[code] then return nil end
  local bad = not status(with[code]) or #(body or "") > longest_body
  for _, h in ipairs(list(headers)) do
    local _, _, header = find(h[1], "^:answer%-(.+)$")
    if header then
      bad = bad or keeps(header) or not written(header, h[2]) or with[header]
      with[header] = h[2]
    end
  end
  if bad then return nil, "what it answers is no answer" end
  return with, nil, body
end

local failed = "an extension failed\n"

-- refuse says why a request goes no further.
local function refuse(handle, why)
  say(handle, why)
  handle:respond({ [code] = "500" }, failed)
end

local function unframe(headers)
  if unframed then headers:remove("content-length") end
end

-- Who calls is for the module alone to know.
local caller = "x-fairway-caller"

local function request_to(handle)
  local headers, ssl = handle:headers(), handle:streamInfo():downstreamSslConnection()
  local names = ssl and ssl:uriSanPeerCertificate()
  headers:replace(caller, names and names[1] or "")
  unframe(headers)
  note(handle, "request")
  expect(headers, "request")
end

local function request_from(handle)
  local missing = absent(handle:headers(), "request")
  local with, why, body = answered(handle:headers())
  why = missing or why or not with and changed(handle, "request")
  handle:headers():remove(caller)
  return why, with, body
end

local function answer_from(handle)
  local why = absent(handle:headers(), "answer") or changed(handle, "answer", code)
  if not why and not status(handle:headers():get(code)) then why = "it made a status that is none from 200 to 599" end
  return why
end

local function answer_to(handle)
  unframe(handle:headers())
  note(handle, "answer", code)
  expect(handle:headers(), "answer")
end

if place == "first" then
  function envoy_on_request(handle)
    local ok, why = pcall(request_to, handle)
    if not ok then refuse(handle, why) end
  end

  function envoy_on_response(handle)
    local ok, why = pcall(answer_from, handle)
    if ok and not why then return end
    say(handle, why)
    -- Nothing of the answer goes on: the module may have been to take something out of it.
    local headers = handle:headers()
    for _, h in ipairs(list(headers)) do
      if h[1] ~= code then headers:remove(h[1]) end
    end
    headers:replace(code, "500")
    handle:body(true):setBytes(failed)
  end
else
  function envoy_on_request(handle)
    local ok, why, with, body = pcall(request_from, handle)
    if why or not ok then
      refuse(handle, why)
    elseif with then
      handle:respond(with, body or "")
    end
  end

  function envoy_on_response(handle)
    -- Without a note the first script lets nothing pass.
    local ok, why = pcall(answer_to, handle)
    if not ok then say(handle, why) end
  end
end
