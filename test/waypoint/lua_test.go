// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
)

// scripted is an application behind a script, and a client.
type scripted struct {
	*world
	app    *reading
	client *http.Client
	answer func(http.ResponseWriter, *http.Request) // nil: what it got
}

func newScripted(t *testing.T) *scripted {
	s := &scripted{world: newWorld(t), app: &reading{}}
	e, _ := s.pod(appID, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.answer != nil {
			s.answer(w, r)
			return
		}
		s.app.ServeHTTP(w, r)
	}))
	s.backend(web, model.ProtocolHTTP, e)
	s.client = s.caller(clientID).client(t, s.serve(web, true, nil), nil)
	return s
}

// runs has all requests go through scripts.
func (s *scripted) runs(sources ...string) {
	s.t.Helper()
	var all []model.Filter
	for _, source := range sources {
		all = append(all, model.Filter{Extension: &model.Extension{Name: "script", Lua: &model.Lua{Source: source}}})
	}
	s.doesWith(model.RouteTable{Default: pointers([]model.Rule{rule(below("/"), filters(all...), to(web, 1))})})
}

// asks sends a request, and returns the answer and its body.
func (s *scripted) asks(method, path, body string, headers ...string) (*http.Response, string) {
	s.t.Helper()
	q, err := http.NewRequestWithContext(s.t.Context(), method, "http://web"+path, strings.NewReader(body))
	require.NoError(s.t, err)
	for n := 0; n < len(headers); n += 2 {
		q.Header.Set(headers[n], headers[n+1])
	}
	resp, err := s.client.Do(q)
	require.NoError(s.t, err)
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	require.NoError(s.t, err)
	return resp, string(b)
}

// until waits for a script to be in force that adds a header to requests or answers, and returns the answer to a
// request.
func (s *scripted) until(status int, path string) string {
	s.t.Helper()
	var body string
	eventually.True(s.t, path, func() bool {
		var resp *http.Response
		resp, body = s.asks(http.MethodGet, path, "")
		return resp.StatusCode == status
	})
	return body
}

// TestLua: what scripts may do with requests and answers.
func TestLua(t *testing.T) {
	s := newScripted(t)
	s.runs(`
function envoy_on_request(handle)
  local headers = handle:headers()
  if headers:get("x-stop") then
    handle:respond({[":status"] = "418", ["x-why"] = "asked"}, "no more")
  end
  headers:add("x-caller", handle:caller())
  headers:replace("x-length", handle:body():length())
  headers:remove("x-gone")
  local names = {}
  for k, v in pairs(headers) do
    if k:find("^x%-one") then names[#names + 1] = k .. "=" .. v end
  end
  headers:add("x-names", table.concat(names, ","))
  local b = handle:body()
  b:setBytes(b:getBytes(0, math.min(b:length(), 3)):upper() .. "!")
  handle:logWarn("here\nand there")
end
function envoy_on_response(handle)
  if handle:headers():get("x-why") or handle:headers():get(":status") == "413" then return end
  handle:headers():add("x-answered", "yes")
  handle:headers():replace(":status", 203)
  local b = handle:body()
  b:setBytes("[" .. b:getBytes(0, b:length()) .. "]")
end`)
	s.until(203, "/")
	resp, body := s.asks(http.MethodPost, "/", "hello", "x-gone", "1", "x-one", "1", "x-one-more", "2")
	require.Equal(t, 203, resp.StatusCode)
	require.Equal(t, "yes", resp.Header.Get("X-Answered"))
	require.Equal(t, "HEL!", s.app.last())
	require.Contains(t, body, `"X-Caller":["`+clientID+`"]`)
	require.Contains(t, body, `"X-Length":["5"]`)
	require.Contains(t, body, `"X-Names":["x-one=1,x-one-more=2"]`)
	require.Contains(t, body, `"Content-Length":["4"]`)
	require.NotContains(t, body, "X-Gone")
	require.True(t, strings.HasPrefix(body, "[") && strings.HasSuffix(body, "]"), body)
	_, _ = s.asks(http.MethodPost, "/", strings.Repeat("x", 1<<20-1024))
	require.Equal(t, "XXX!", s.app.last())
	resp, _ = s.asks(http.MethodPost, "/", strings.Repeat("x", 3<<20))
	require.Equal(t, http.StatusRequestEntityTooLarge, resp.StatusCode)
	resp, body = s.asks(http.MethodGet, "/", "", "x-stop", "1")
	require.Equal(t, http.StatusTeapot, resp.StatusCode)
	require.Equal(t, "asked", resp.Header.Get("X-Why"))
	require.Equal(t, "no more", body)
	require.Contains(t, s.log.String(), "HTTPExtension shop/script: here?and there")
	s.answer = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1<<20)) }
	s.until(http.StatusInternalServerError, "/a-long-answer")
}

// TestLuaSandbox: a script has neither what reaches beyond its request, nor what is not for it to change, and one that
// fails, or takes too long or too much, is answered 500 for. The proxy takes every table.
func TestLuaSandbox(t *testing.T) {
	s := newScripted(t)
	served := func() int64 { return s.app.Requests.Load() }
	for what, source := range map[string]string{
		"no Lua":               "function envoy_on_request(handle",
		"nothing":              "local x = 1",
		"bytecode":             "\x1bLJ\x02",
		"fails at once":        "error('x')",
		"never ends":           "while true do end",
		"needs io":             "local f = io.open('/etc/passwd')",
		"a table as error":     request("error({})"),
		"nil":                  request("local x = nil; x.y = 1"),
		"endless":              request("while true do end"),
		"endless, and catches": request("while true do pcall(function() while true do end end) end"),
		"endless, where the stack ends": request(`local function spin() for i = 1, 1e7 do end end
			local function down() pcall(down) while true do pcall(spin) end end down()`),
		"endless, where the stack ends, otherwise": request(`local function spin() for i = 1, 1e7 do end end
			local function down() pcall(down) while true do pcall(pcall, pcall, spin) end end down()`),
		"endless, after an answer": `local held = {}
			function envoy_on_request(handle)
				for _, h in ipairs(held) do
					pcall(h.respond, h, {[':status'] = 200})
					while true do end
				end
				held[1] = handle
				error('next')
			end`,
		"endless, after an answer where the stack ends": `local held = {}
			function envoy_on_request(handle)
				for _, h in ipairs(held) do
					local function down()
						pcall(down)
						pcall(h.respond, h, {[':status'] = 200})
						while true do end
					end
					down()
				end
				held[1] = handle
				error('next')
			end`,
		"endless, after no body": `local held = {}
			function envoy_on_request(handle)
				for _, h in ipairs(held) do
					while true do pcall(h.body, h) end
				end
				held[1] = handle
				error('next')
			end`,
		"endless bodies":        request("while true do handle:body() end"),
		"deep":                  request("local function f() return 1 + f() end f()"),
		"grows":                 request("local t = {} while true do t[#t + 1] = string.rep('x', 10000) .. #t end"),
		"repeats":               request("('x'):rep(2 ^ 30)"),
		"os":                    request("os.execute('true')"),
		"require":               request("require('ffi')"),
		"ffi":                   request("ffi.cdef('int x;')"),
		"load":                  request("load('return 1')()"),
		"environments":          request("getfenv(1)"),
		"debug":                 request("debug.getinfo(1)"),
		"metatables of texts":   request("getmetatable('').__index.find = nil"),
		"calls":                 request("handle:httpCall('x', {}, '', 1)"),
		"metadata":              request("handle:streamInfo():dynamicMetadata():set('a', 'b', 'c')"),
		"filter state":          request("handle:streamInfo():filterState()"),
		"connections":           request("handle:connection()"),
		"routes":                request("handle:clearRouteCache()"),
		"hosts":                 request("handle:setUpstreamOverrideHost('127.0.0.1:1', true)"),
		"the method":            request("handle:headers():replace(':method', 'PUT')"),
		"the path":              request("handle:headers():replace(':path', '/admin')"),
		"the authority":         request("handle:headers():replace(':authority', 'other')"),
		"the host":              request("handle:headers():replace('Host', 'other')"),
		"the caller":            request("handle:headers():replace('X-Forwarded-Client-Cert', 'URI=spiffe://x')"),
		"the caller, otherwise": request("handle:headers():add('x_forwarded_client_cert', 'URI=spiffe://x')"),
		"the proxy":             request("handle:headers():add('x-envoy-retry-on', '5xx')"),
		"the port":              request("handle:headers():replace('x-fairway-port', 'x')"),
		"the policies":          request("handle:headers():add('x-fairway-authentication', 'x')"),
		"the length":            request("handle:headers():replace('content-length', '1')"),
		"chunks":                request("handle:headers():add('transfer-encoding', 'chunked')"),
		"two lines":             request("handle:headers():add('x-a', 'a\\r\\nb: c')"),
		"a name of two":         request("handle:headers():add('x-a\\nb', 'a')"),
		"a number as status":    request("handle:respond({[':status'] = '99'})"),
		"many headers":          request("for i = 1, 1000 do handle:headers():add('x-' .. i, 'a') end"),
	} {
		s.runs(source)
		body := s.until(http.StatusInternalServerError, "/"+strings.ReplaceAll(what, " ", "-"))
		require.Equal(t, "an extension failed\n", body, what)
		before := served()
		resp, _ := s.asks(http.MethodPost, "/", "body")
		require.Equal(t, http.StatusInternalServerError, resp.StatusCode, what)
		require.Equal(t, before, served(), what)
		s.runs("function envoy_on_request() end")
		s.until(http.StatusOK, "/")
	}
}

// TestLuaFailsAtItsEnd: a script that fails with the last instruction that it may execute, or one before or behind,
// lets nothing pass.
func TestLuaFailsAtItsEnd(t *testing.T) {
	s := newScripted(t)
	s.runs(request(`local n = tonumber(handle:headers():get("x-n") or "")
		if n then
			for i = 1, n do end
			error("no")
		end`))
	s.until(http.StatusOK, "/")
	served := s.app.Requests.Load()
	for n := range 100 {
		resp, body := s.asks(http.MethodGet, "/", "", "x-n", fmt.Sprint(1_000_000-n))
		require.Equal(t, http.StatusInternalServerError, resp.StatusCode, n)
		require.Equal(t, "an extension failed\n", body, n)
	}
	require.Equal(t, served, s.app.Requests.Load())
	require.Contains(t, s.log.String(), "it takes too long")
	require.Contains(t, s.log.String(), "script:4: no")
}

// request is a script that does something with requests.
func request(does string) string {
	return "function envoy_on_request(handle) " + does + " end"
}
