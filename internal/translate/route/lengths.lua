-- An authorization service says by gRPC which headers answers get. So how long a body is, is noted before one has its
-- say (`place` "noted"), by the name `of`, and said again after it ("said"): what a body has beyond its length would be
-- the answer to the next request. FilterBodiless says what was noted last.

local notes = "fairway.lengths"

function envoy_on_response(handle)
  local headers, store = handle:headers(), handle:streamInfo():dynamicMetadata()
  if place == "noted" then
    store:set(notes, of, headers:get("content-length") or "")
    return
  end
  local length = (store:get(notes) or {})[of]
  if not length then return end
  headers:remove("content-length")
  if length ~= "" then headers:add("content-length", length) end
end
