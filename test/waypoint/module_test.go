// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/wasm"
	"github.com/fairway-mesh/fairway/test/wasmtest"
)

// moduleOf is an extension that runs a module as the operator gives it to proxies. It is shown all there is to see.
func moduleOf(t testing.TB, m *wasmtest.Module) model.Wasm {
	t.Helper()
	judged, err := wasm.Judge(m.Bytes())
	require.NoError(t, err)
	return model.Wasm{
		Code: judged.Code, Marked: judged.Marked, Request: model.Processed{Headers: true, Body: model.BodyStreamed},
		Response: model.Processed{Headers: true, Body: model.BodyStreamed},
	}
}

func through(w model.Wasm) model.Filter {
	return model.Filter{Extension: &model.Extension{Name: "module", Wasm: &w}}
}

// module has all requests go through modules.
func (s *scripted) module(all ...model.Wasm) {
	s.t.Helper()
	var f []model.Filter
	for _, w := range all {
		f = append(f, through(w))
	}
	s.doesWith(model.RouteTable{Default: pointers([]model.Rule{rule(below("/"), filters(f...), to(web, 1))})})
}

// TestModule: what modules may do with requests and answers.
func TestModule(t *testing.T) {
	s := newScripted(t)
	p := wasmtest.Plugin()
	p.On(wasmtest.OnRequest, p.Set(wasmtest.Request, "x-set", "1"), p.Add(wasmtest.Request, "x-one", "2"),
		p.Remove(wasmtest.Request, "x-gone"), p.SetKept("x-config"),
		p.Copy("x-fairway-caller", "x-caller"), p.Log("here\nand there"))
	p.On(wasmtest.OnConfigure, wasmtest.Keep())
	p.On(wasmtest.OnRequestBody, p.Replace(wasmtest.RequestBody, "another"))
	p.On(wasmtest.OnResponse, p.Set(wasmtest.Response, "x-answered", "yes"), p.Set(wasmtest.Response, ":status", "203"))
	p.On(wasmtest.OnResponseBody, p.Replace(wasmtest.ResponseBody, "all new"))
	w := moduleOf(t, p)
	w.Config = "a: b"
	s.module(w)
	s.until(203, "/")
	resp, body := s.asks(http.MethodPost, "/", "hello", "x-gone", "1", "x-one", "1")
	require.Equal(t, 203, resp.StatusCode)
	require.Equal(t, "yes", resp.Header.Get("X-Answered"))
	require.Empty(t, strings.ReplaceAll(body, "all new", ""), "each piece is replaced")
	require.Empty(t, strings.ReplaceAll(s.app.last(), "another", ""))
	require.Contains(t, s.log.String(), `here\nand there`)
	w.Response = model.Processed{}
	s.module(w)
	eventually.True(t, "answers are not shown any more", func() bool {
		resp, body = s.asks(http.MethodPost, "/", "hello", "x-gone", "1", "x-one", "1")
		return resp.StatusCode == http.StatusOK
	})
	require.Empty(t, resp.Header.Get("X-Answered"))
	for _, want := range []string{
		`"X-Set":["1"]`, `"X-One":["1","2"]`, `"X-Config":["a: b"]`, `"X-Caller":["` + clientID + `"]`,
	} {
		require.Contains(t, body, want)
	}
	require.NotContains(t, body, "X-Gone")
	require.NotContains(t, body, "X-Fairway")
	w.Request = model.Processed{Headers: true}
	s.module(w)
	eventually.True(t, "bodies are not shown any more", func() bool {
		_, _ = s.asks(http.MethodPost, "/", "hello")
		return s.app.last() == "hello"
	})
	require.NotContains(t, strings.ReplaceAll(s.log.String(), `\n`, ""), "\nand there")
}

// notForOthers are headers of requests that nobody between two scripts of ours may set: they change where a request is
// for, who calls, where it ends or what the proxy does, or are none.
var notForOthers = [][2]string{
	{":path", "/admin"},
	{":method", "PUT"},
	{":authority", "other"},
	{":scheme", "ftp"},
	{":protocol", "x"},
	{":other", "x"},
	{"host", "other"},
	{"x-forwarded-client-cert", "URI=spiffe://x"},
	{"x_forwarded_client_cert", "URI=spiffe://x"},
	{"X_Forwarded-For", "1.2.3.4"},
	{"x-forwarded-proto", "https"},
	{"x-envoy-retry-on", "5xx"},
	{"x-fairway-port", "80.other.shop"},
	{"x-fairway-authentication", "x"},
	{"transfer-encoding", "chunked"},
	{"connection", "x-role"},
	{"te", "trailers"},
	{"upgrade", "websocket"},
	{"x-split", "a\r\nx-role: admin"},
	{"x-null", "a\x00"},
	{"x split", "a"},
	{"x-a: b\r\nx-b", "c"},
	{"", "a"},
	{strings.Repeat("x", 257), "x"},
}

// TestModulesStayInTheirPlace: what no extension may change, no module changes; what reaches beyond its message, it
// can't call; and what it wrote late, or so that it is no header, goes nowhere.
func TestModulesStayInTheirPlace(t *testing.T) {
	s := newScripted(t)
	p := wasmtest.Plugin()
	calls := p.Text("x")
	three, five := wasmtest.Ops(calls, wasmtest.I32(0)), wasmtest.Ops(calls, calls, wasmtest.I32(0))
	call := func(name string, args ...wasmtest.Op) wasmtest.Op {
		return p.SetIf("x-did-"+strings.ReplaceAll(name, "_", "-"), append(args, wasmtest.Call("env.proxy_"+name))...)
	}
	p.On(wasmtest.OnRequest,
		call("get_property", p.Text("node\x00id"), wasmtest.I32(16), wasmtest.I32(20)),
		call("set_property", p.Text("a"), calls),
		call("set_shared_data", five),
		call("define_metric", wasmtest.I32(0), three),
		call("set_tick_period_milliseconds", wasmtest.I32(1)),
		call("set_effective_context", wasmtest.I32(1)),
		call("call_foreign_function", p.Text("clear_route_cache"), calls, wasmtest.I32(16), wasmtest.I32(20)),
		call("http_call", p.Text("service/shop/web/80"), calls, calls, calls, wasmtest.I32(1000), wasmtest.I32(16)),
		call("send_local_response", wasmtest.I32(200), calls, calls, calls, wasmtest.I32(-1)),
		p.Set(wasmtest.Request, "x-ran", "1"))
	p.On(wasmtest.OnRequestBody, p.Set(wasmtest.Request, "x-late", "1"))
	p.On(wasmtest.OnResponse, p.Set(wasmtest.Request, "x-late", "1"))
	s.module(moduleOf(t, p))
	var body string
	eventually.True(t, "the module", func() bool {
		_, body = s.asks(http.MethodPost, "/", "body")
		return strings.Contains(body, `"X-Ran":["1"]`)
	})
	require.NotContains(t, body, "X-Did")
	require.NotContains(t, body, "X-Late")

	for _, tc := range append(slices.Clone(notForOthers), [][2]string{
		{"x-fairway-caller", "spiffe://x"},
		{"content-length", "1"},
		{"user-agent", "abc\r\nx-role: admin"}, // as long as the one that is there
		{"x-long", strings.Repeat("x", 65537)},
	}...) {
		s.refused(true, func(p *wasmtest.Module) { p.On(wasmtest.OnRequest, p.Set(wasmtest.Request, tc[0], tc[1])) }, tc)
	}
	for _, name := range []string{":path", ":method", ":authority", "x-forwarded-proto"} {
		s.refused(true, func(p *wasmtest.Module) { p.On(wasmtest.OnRequest, p.Remove(wasmtest.Request, name)) }, name)
	}
	all := func(of int32, callback string) func(p *wasmtest.Module) {
		return func(p *wasmtest.Module) { p.On(callback, p.RemoveAll(of)) }
	}
	s.refused(true, all(wasmtest.Request, wasmtest.OnRequest), "no header left")
	s.refused(false, all(wasmtest.Response, wasmtest.OnResponse), "no header left")
	s.refused(false, func(p *wasmtest.Module) {
		p.On(wasmtest.OnResponse, p.Remove(wasmtest.Response, ":status"))
	}, "no status")
	s.refused(true, func(p *wasmtest.Module) {
		var many []wasmtest.Op
		for n := range 257 {
			many = append(many, p.Add(wasmtest.Request, fmt.Sprint("x-", n), ""))
		}
		p.On(wasmtest.OnRequest, many...)
	}, "many headers")
	for _, tc := range []struct{ name, value string }{
		{":status", "99"},
		{":status", "101"},
		{":status", "600"},
		{":status", "2000"},
		{":status", "ok"},
		{":path", "/"},
		{"content-length", "1"},
		{"transfer-encoding", "x"},
		{"connection", "close"},
		{"x-envoy-x", "1"},
		{"x-split", "a\r\nset-cookie: a=b"},
		{"upgrade", "x"},
	} {
		s.refused(false, func(p *wasmtest.Module) {
			p.On(wasmtest.OnResponse, p.Set(wasmtest.Response, tc.name, tc.value))
		}, tc)
	}
}

// refused wants requests through a module to be answered by an error, and nothing else; where it is for what the module
// makes of requests, they don't reach the application.
func (s *scripted) refused(asked bool, does func(*wasmtest.Module), what any) {
	s.t.Helper()
	p := wasmtest.Plugin()
	does(p)
	s.module(moduleOf(s.t, p))
	var resp *http.Response
	var body string
	eventually.True(s.t, "an error", func() bool {
		resp, body = s.asks(http.MethodGet, "/", "")
		return resp.StatusCode == http.StatusInternalServerError
	})
	require.Equal(s.t, "an extension failed\n", body, "%.60v", what)
	served := s.app.Requests.Load()
	resp, body = s.asks(http.MethodPost, "/", "body")
	require.Equal(s.t, http.StatusInternalServerError, resp.StatusCode)
	require.Equal(s.t, "an extension failed\n", body, "%.60v", what)
	if asked {
		require.Equal(s.t, served, s.app.Requests.Load(), "%.60v", what)
	}
	require.Empty(s.t, resp.Header.Get("Set-Cookie"))
	s.module() // or the next one's answer could be this one's
	s.until(http.StatusOK, "/")
}

// TestModulesAnswer: a module answers in the application's place, by headers that become the answer.
func TestModulesAnswer(t *testing.T) {
	s := newScripted(t)
	p := wasmtest.Plugin()
	p.On(wasmtest.OnRequest, p.Set(wasmtest.Request, ":status", "418"), p.Set(wasmtest.Request, ":body", "no more\n"),
		p.Set(wasmtest.Request, ":answer-x-why", "asked"), p.Set(wasmtest.Request, ":path", "/elsewhere"))
	s.module(moduleOf(t, p))
	s.until(http.StatusTeapot, "/")
	served := s.app.Requests.Load()
	resp, body := s.asks(http.MethodPost, "/", "hello")
	require.Equal(t, http.StatusTeapot, resp.StatusCode)
	require.Equal(t, "asked", resp.Header.Get("X-Why"))
	require.Equal(t, "no more\n", body)
	require.Equal(t, served, s.app.Requests.Load())
	for _, tc := range [][2]string{
		{":status", "700"},
		{":status", "100"},
		{":answer-x-envoy-x", "1"},
		{":answer-content-length", "1"},
		{":answer-x-split", "a\r\nset-cookie: a=b"},
		{":answer-:path", "/"},
	} {
		s.refused(true, func(p *wasmtest.Module) {
			p.On(wasmtest.OnRequest, p.Set(wasmtest.Request, ":status", "200"), p.Set(wasmtest.Request, tc[0], tc[1]))
		}, tc)
	}
}

// TestModulesThatFail: a module that traps lets nothing pass, and is there again a little later; and one that asks for
// all memory gets no more than it may have.
func TestModulesThatFail(t *testing.T) {
	s := newScripted(t)
	p := wasmtest.Plugin()
	p.On(wasmtest.OnRequest, p.If("x-trap", wasmtest.Trap), p.If("x-grow", wasmtest.Grow()),
		p.Set(wasmtest.Request, "x-ran", "1"))
	s.module(moduleOf(t, p))
	ran := func() bool {
		_, body := s.asks(http.MethodGet, "/", "")
		return strings.Contains(body, `"X-Ran":["1"]`)
	}
	eventually.True(t, "the module", ran)
	served := s.app.Requests.Load()
	resp, _ := s.asks(http.MethodGet, "/", "", "x-trap", "1")
	require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
	require.Equal(t, served, s.app.Requests.Load())
	eventually.True(t, "the module once more", ran)

	before := residentKiB(t, s.pid)
	resp, _ = s.asks(http.MethodGet, "/", "", "x-grow", "1")
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Less(t, residentKiB(t, s.pid), before+128*1024)
	require.True(t, ran())
}

// TestModulesThatWait: a module that says of headers anything else than to go on waits for what no module may call. It
// is stopped at once: nothing goes on past the script behind it, and no caller waits for ever. It changes no headers
// once they went on, and what it says of bodies holds no more than these.
func TestModulesThatWait(t *testing.T) {
	s := newScripted(t)
	p := wasmtest.Plugin()
	waits := func(of int32, header string) (out []wasmtest.Op) {
		for n := range int32(7) {
			out = append(out, p.IfOf(of, fmt.Sprint(header, n), wasmtest.I32(n), wasmtest.Return))
		}
		return out
	}
	p.On(wasmtest.OnRequest, append(waits(wasmtest.Request, "x-wait-"), p.Set(wasmtest.Request, "x-ran", "1"))...)
	p.On(wasmtest.OnRequestBody, p.Set(wasmtest.Request, "x-late", "1"), p.Set(wasmtest.Request, ":path", "/admin"))
	p.On(wasmtest.OnResponse, waits(wasmtest.Response, "x-answer-wait-")...)
	p.On(wasmtest.OnResponseBody, p.Set(wasmtest.Response, "x-late", "1"))
	s.module(moduleOf(t, p))
	s.answer = func(w http.ResponseWriter, r *http.Request) {
		if n := r.Header.Get("X-Answer-Wait"); n != "" {
			w.Header().Set("X-Answer-Wait-"+n, "1")
		}
		s.app.ServeHTTP(w, r)
	}
	ran := func() bool {
		_, body := s.asks(http.MethodGet, "/", "")
		return strings.Contains(body, `"X-Ran":["1"]`)
	}
	for n := range 7 {
		for _, header := range [][2]string{{fmt.Sprint("X-Wait-", n), "1"}, {"X-Answer-Wait", fmt.Sprint(n)}} {
			eventually.True(t, "the module", ran)
			served := s.app.Requests.Load()
			resp, body := s.asks(http.MethodPost, "/", "hello", header[0], header[1])
			if n > 0 {
				require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode, header)
				if header[0] != "X-Answer-Wait" {
					require.Equal(t, served, s.app.Requests.Load(), header)
				}
				continue
			}
			require.Equal(t, http.StatusOK, resp.StatusCode, header)
			require.Empty(t, resp.Header.Get("X-Late"), header)
			require.Contains(t, body, `"URI":"/"`, header)
			require.NotContains(t, body, "X-Late", header)
			require.NotContains(t, body, "X-Fairway", header)
		}
	}
}

// TestModulesThatHoldTheEnd: a module may hold pieces of a body until it has seen the last one, and not that one, for
// nothing comes by which it would go on. It is stopped at once.
func TestModulesThatHoldTheEnd(t *testing.T) {
	s := newScripted(t)
	hold := wasmtest.Ops(wasmtest.I32(1), wasmtest.Return)
	p := wasmtest.Plugin()
	for _, callback := range []string{wasmtest.OnRequestBody, wasmtest.OnResponseBody} {
		end, length := wasmtest.Local(2), wasmtest.Local(1) // of all that is held
		p.On(callback, end, wasmtest.Raw(0x45), wasmtest.If(hold), length, wasmtest.I32(8), wasmtest.Raw(0x4b),
			wasmtest.If(hold))
	}
	p.On(wasmtest.OnResponse, p.Set(wasmtest.Response, "x-ran", "1"))
	s.module(moduleOf(t, p))
	s.answer = func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return // it begins before its body is there
		}
		s.app.Requests.Add(1)
		for _, piece := range []string{string(b), strings.TrimPrefix(r.URL.Path, "/")} {
			_, _ = io.WriteString(w, piece)
			_ = http.NewResponseController(w).Flush()
		}
	}
	works := func() bool {
		resp, body := s.asks(http.MethodPost, "/too", "some")
		return resp.Header.Get("X-Ran") != "" && body == "sometoo"
	}
	eventually.True(t, "the module", works)
	served := s.app.Requests.Load()
	resp, _ := s.asks(http.MethodPost, "/", "longer than that")
	require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
	require.Equal(t, served, s.app.Requests.Load())
	eventually.True(t, "the module once more", works)
	resp, err := s.client.Get("http://web/longer-than-that")
	require.NoError(t, err)
	_, err = io.ReadAll(resp.Body)
	require.NoError(t, resp.Body.Close())
	require.ErrorIs(t, err, io.ErrUnexpectedEOF, "its headers went on")
	eventually.True(t, "the module once more", works)
}

// TestModulesHaveNothingThatWentOn: a body that a module let go on, Envoy gives it no more. Of anything that it does
// give it would say that a change is well.
func TestModulesHaveNothingThatWentOn(t *testing.T) {
	s := newScripted(t)
	p := wasmtest.Plugin()
	change := func(buffer int32, when string) wasmtest.Op {
		log := func(what string) wasmtest.Op {
			return wasmtest.Ops(wasmtest.I32(3), p.Text(what), wasmtest.Call("env.proxy_log"), wasmtest.Drop)
		}
		return wasmtest.Ops(wasmtest.I32(buffer), wasmtest.I32(0), wasmtest.I32(0), p.Text("x"),
			wasmtest.Call("env.proxy_set_buffer_bytes"), wasmtest.Raw(0x45), wasmtest.If(log("changed, "+when)),
			log("asked, "+when))
	}
	p.On(wasmtest.OnRequestBody, change(wasmtest.RequestBody, "of a request"))
	p.On(wasmtest.OnResponseBody, change(wasmtest.ResponseBody, "of an answer"))
	p.Functions = append(p.Functions, wasmtest.Function{
		Name: "proxy_on_done", Signature: "i:i", Body: []wasmtest.Op{
			change(wasmtest.RequestBody, "of a request at the end"), change(wasmtest.ResponseBody, "of an answer at the end"),
			wasmtest.I32(1),
		},
	})
	s.module(moduleOf(t, p))
	eventually.True(t, "the end of a request", func() bool {
		_, _ = s.asks(http.MethodPost, "/", "hello")
		return strings.Contains(s.log.String(), "asked, of an answer at the end")
	})
	for _, of := range []string{"a request", "an answer"} {
		require.Contains(t, s.log.String(), "changed, of "+of)
		require.NotContains(t, s.log.String(), "changed, of "+of+" at the end")
	}
}

// TestModulesReadNothingThatIsGone: a module that has a piece of a body neither go on nor held by Envoy, and asks for
// it when it is gone, is stopped at once, and the waypoint goes on.
func TestModulesReadNothingThatIsGone(t *testing.T) {
	s := newScripted(t)
	p := wasmtest.Plugin()
	ask := func(buffer int32) wasmtest.Op {
		return wasmtest.Ops(wasmtest.I32(buffer), wasmtest.I32(0), wasmtest.I32(4096), wasmtest.I32(16), wasmtest.I32(20),
			wasmtest.Call("env.proxy_get_buffer_bytes"), wasmtest.Drop)
	}
	p.Functions = append(p.Functions, wasmtest.Function{
		Name: "proxy_on_done", Signature: "i:i",
		Body: []wasmtest.Op{ask(wasmtest.RequestBody), ask(wasmtest.ResponseBody), wasmtest.I32(1)},
	})
	p.On(wasmtest.OnResponse, p.Set(wasmtest.Response, "x-ran", "1"))
	// The second parameter is how much there is: answers say what is to become of them by their length, and so at the end.
	p.On(wasmtest.OnResponseBody, wasmtest.Local(1), wasmtest.Raw(0x45), wasmtest.If(wasmtest.I32(2), wasmtest.Return),
		wasmtest.Local(1), wasmtest.Return)
	s.module(moduleOf(t, p))
	s.answer = func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, strings.TrimPrefix(r.URL.Path, "/"))
	}
	ran := func(body string) (bool, error) {
		// A connection whose answer ends so is closed 5 s later (delayed_close_timeout).
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		q, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://web/"+body, http.NoBody)
		require.NoError(t, err)
		resp, err := s.client.Do(q)
		if err != nil {
			return false, err
		}
		defer func() { _ = resp.Body.Close() }()
		_, err = io.Copy(io.Discard, resp.Body)
		return resp.Header.Get("X-Ran") != "", err
	}
	again := func() bool {
		is, err := ran("")
		return is && err == nil
	}
	eventually.True(t, "the module", again)
	for _, body := range []string{"ab", "abc"} {
		_, err := ran(body)
		require.Error(t, err, "what it would not let go is gone")
		require.NotErrorIs(t, err, context.DeadlineExceeded)
		eventually.True(t, "the module once more", again)
	}
}

// TestEveryFunctionOfModules: proxies have every function that a module may import, as the operator knows it.
func TestEveryFunctionOfModules(t *testing.T) {
	s := newScripted(t)
	p := wasmtest.Plugin()
	p.Imports = nil
	for name, signature := range wasm.Imports() {
		p.Imports = append(p.Imports, wasmtest.Function{Name: name, Signature: signature})
	}
	for name, signature := range wasm.Exports() {
		if slices.ContainsFunc(p.Functions, func(f wasmtest.Function) bool { return f.Name == name }) ||
			strings.HasPrefix(name, "proxy_abi_version") {
			continue
		}
		f := wasmtest.Function{Name: name, Signature: signature}
		switch name {
		case wasmtest.OnConfigure, "proxy_validate_configuration":
			f.Body = []wasmtest.Op{wasmtest.I32(1)}
		case "proxy_on_memory_allocate":
			f.Body = []wasmtest.Op{wasmtest.I32(64 << 10)}
		default:
			if !strings.HasSuffix(signature, ":") {
				f.Body = []wasmtest.Op{wasmtest.I32(0)}
			}
		}
		p.Functions = append(p.Functions, f)
	}
	s.module(moduleOf(t, p))
	s.until(http.StatusOK, "/")
}

// residentKiB is how much memory a process has.
func residentKiB(t testing.TB, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	var n int
	_, err = fmt.Sscan(rest, &n)
	require.NoError(t, err)
	return n
}
