// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/yuin/gopher-lua/parse"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/ingest/policy"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// processorTimeout is how long an external processor has for each answer.
const processorTimeout = time.Second

// bytesOfScript, bytesOfProcessor and bytesOfModule are what each copy of an extension counts in a table, besides what
// is written in it. A proxy has an interpreter of a script for each of its threads, and of a module its code, what that
// was compiled to, and a memory for each thread.
const (
	bytesOfScript    = 256 << 10
	bytesOfProcessor = 8 << 10
	bytesOfModule    = 1 << 20
)

func bytesOfExtension(e model.Extension) int {
	switch {
	case e.Lua != nil:
		return bytesOfScript + len(e.Lua.Source)
	case e.Processor != nil:
		return bytesOfProcessor + len(strings.Join(e.Processor.Changes, ""))
	case e.Wasm != nil:
		return bytesOfModule + 4*len(e.Wasm.Code) + len(e.Wasm.Config)
	}
	return 0
}

// extension is an HTTPExtension as read.
type extension struct {
	ref        model.ObjectRef
	uid        types.UID
	generation int64
	taken      int // entries of its status that are others'
	content    model.Extension
	// bad says why it can't be carried out; nil if it can.
	bad *Verdict
}

func (i *Ingest) defineExtensions(g *memo.Graph) {
	i.extensionOf = memo.Define(g, "extension", reflectEqual[*extension], i.readExtension)
	i.moduleOf = memo.Define(g, "module", reflectEqual[*module], i.readModule)
	i.extensionsAllowed = memo.Define(g, "extensionsAllowed", reflectEqual[map[v1alpha1.ExtensionType]bool],
		i.allowedExtensions)
	i.policyReports[v1alpha1.KindHTTPExtension] = i.extensionReport
}

func (i *Ingest) readExtension(c *memo.Ctx, key cluster.Key) *extension {
	o, ok := i.store.Extensions.Get(c, key)
	if !ok {
		return nil
	}
	out := &extension{
		ref: model.ObjectRef{Kind: v1alpha1.KindHTTPExtension, Namespace: key.Namespace, Name: key.Name},
		uid: o.UID, generation: o.Generation, taken: cluster.TakenByOthers(o),
		content: model.Extension{Name: key.Name},
	}
	i.readContent(c, o.Spec, out)
	if out.bad == nil {
		if _, err := i.check(model.Rule{Filters: []model.Filter{{Extension: &out.content}}}); err != nil {
			out.bad = invalidExtension(err.Error())
		}
	}
	if out.bad != nil {
		out.content = model.Extension{Name: key.Name, Invalid: true}
	}
	return out
}

// readContent reads what an extension is, or says why it is nothing.
func (i *Ingest) readContent(c *memo.Ctx, spec v1alpha1.HTTPExtensionSpec, out *extension) {
	set := 0
	for _, has := range []bool{spec.Lua != nil, spec.ExtProc != nil, spec.Wasm != nil} {
		if has {
			set++
		}
	}
	switch {
	case set != 1:
		out.bad = invalidExtension("set exactly one of lua, extProc and wasm")
	case spec.Lua != nil:
		out.content.Lua = &model.Lua{Source: spec.Lua.Source}
		if why := badScript(spec.Lua.Source); why != "" {
			out.bad = invalidExtension("lua.source: " + why)
		}
	case spec.ExtProc != nil:
		out.content.Processor, out.bad = i.processor(c, out.ref.Namespace, spec.ExtProc)
	default:
		out.content.Wasm, out.bad = i.wasm(c, out.ref.Namespace, spec.Wasm)
	}
}

func invalidExtension(message string) *Verdict {
	return &Verdict{Reason: string(gwv1.PolicyReasonInvalid), Message: message}
}

// badScript says what is wrong with a script; "" if nothing. The parser's dialect is Lua 5.1 with goto, as LuaJIT's. A
// script that only LuaJIT refuses fails when it is run, and closes what it was for. One without a word of the functions
// that proxies call would do nothing, and be taken for one that does.
func badScript(source string) string {
	const most = 32 << 10
	if len(source) > most {
		return fmt.Sprintf("a script can have %d bytes at most", most)
	}
	if _, err := parse.Parse(strings.NewReader(source), "script"); err != nil {
		return notLua(err)
	}
	if !strings.Contains(source, "envoy_on_request") && !strings.Contains(source, "envoy_on_response") {
		return "it defines neither envoy_on_request nor envoy_on_response, which are what proxies call"
	}
	return ""
}

// notLua says where a script is none. It leaves out the word that the parser has stopped at, since that can be a text
// of any length and may be a secret, and who reads a status need not be who may read the script.
func notLua(err error) string {
	var at *parse.Error
	switch {
	case !errors.As(err, &at):
		return "it is not Lua"
	case at.Pos.Line == parse.EOF:
		return "it is not Lua: something is missing at its end"
	}
	return fmt.Sprintf("it is not Lua: line %d, column %d: %s", at.Pos.Line, at.Pos.Column, at.Message)
}

func (i *Ingest) processor(
	c *memo.Ctx, namespace string, p *v1alpha1.ExternalProcessing,
) (*model.Processor, *Verdict) {
	out := &model.Processor{
		Open: p.FailureMode == v1alpha1.FailureModeOpen, Request: processed(p.Request), Response: processed(p.Response),
		Timeout: cmp.Or(ptr.Deref(durationOf(p.Timeout), 0), processorTimeout),
	}
	for _, name := range p.AllowedHeaders {
		out.Changes = append(out.Changes, strings.ToLower(name))
	}
	var bad *Verdict
	out.Service, bad = i.referredPort(c, v1alpha1.KindHTTPExtension, namespace, p.BackendRef)
	if bad == nil {
		bad = i.undeclaredHTTP2(c, out.Service, "extProc")
	}
	if bad != nil {
		bad.Message = "extProc: " + bad.Message
		return nil, bad
	}
	out.TLS = i.SpeaksTLS.Get(c, out.Service)
	return out, nil
}

func processed(in *v1alpha1.ProcessedMessage) (out model.Processed) {
	if in == nil {
		return out
	}
	out.Headers, out.Trailers = true, in.Trailers
	switch in.Body {
	case v1alpha1.ProcessedBodyBuffered:
		out.Body = model.BodyBuffered
	case v1alpha1.ProcessedBodyStreamed:
		out.Body = model.BodyStreamed
	case v1alpha1.ProcessedBodyNone:
	}
	return out
}

// extension is what a filter names, in the route's own namespace. Where it can't be used the rule answers an error, for
// no filter may be skipped.
func (b *routeBuilder) extension(ref gwv1.LocalObjectReference) *model.Extension {
	invalid := &model.Extension{Name: string(ref.Name), Invalid: true}
	const then = "; until then, requests that match the rule get an error"
	if string(ref.Group) != v1alpha1.GroupVersion.Group || ref.Kind != v1alpha1.KindHTTPExtension {
		b.noteUnresolved(gwv1.RouteReasonInvalidKind, "extensionRef %s %q of group %q: the mesh knows kind %s of group %s%s",
			ref.Kind, ref.Name, ref.Group, v1alpha1.KindHTTPExtension, v1alpha1.GroupVersion.Group, then)
		return invalid
	}
	key := cluster.Key{Namespace: b.route.ref.Namespace, Name: string(ref.Name)}
	e := b.i.extensionOf.Get(b.c, key)
	switch {
	case e == nil:
		b.noteUnresolved(v1alpha1.RouteReasonExtensionNotFound, "HTTPExtension %s does not exist%s", key, then)
	case e.bad != nil && e.bad.Reason == string(gwv1.PolicyReasonInvalid):
		b.noteUnresolved(v1alpha1.RouteReasonInvalidExtension, "HTTPExtension %s: %s%s", key, e.bad.Message, then)
	case e.bad != nil:
		b.noteUnresolved(gwv1.RouteConditionReason(e.bad.Reason), "HTTPExtension %s: %s%s", key, e.bad.Message, then)
	default:
		return &e.content
	}
	return invalid
}

// allowedExtensions are those that the Mesh allows in the waypoints of a namespace.
func (i *Ingest) allowedExtensions(c *memo.Ctx, namespace string) map[v1alpha1.ExtensionType]bool {
	m, ok := i.store.Meshes.Get(c, cluster.Key{Name: names.Mesh})
	ns := i.namespace(c, namespace)
	if !ok || ns == nil || m.Spec.Extensions == nil {
		return nil
	}
	out := map[v1alpha1.ExtensionType]bool{}
	for _, a := range m.Spec.Extensions.Allow {
		in := labels.Everything()
		if a.NamespaceSelector != nil {
			var err error
			if in, err = metav1.LabelSelectorAsSelector(a.NamespaceSelector); err != nil {
				continue
			}
		}
		if in.Matches(labels.Set(ns.Labels)) {
			for _, t := range a.Types {
				out[t] = true
			}
		}
	}
	return out
}

// unextended says why the waypoint of a port may not run an extension of a rule; nil if it may run all.
func (i *Ingest) unextended(c *memo.Ctx, r model.Rule, at model.ServicePort) *Verdict {
	for _, f := range r.Filters {
		if f.Extension == nil || f.Extension.Invalid {
			continue
		}
		if v := i.unextendedIn(c, r.Source.Namespace, *f.Extension, at); v != nil {
			return v
		}
	}
	return nil
}

func (i *Ingest) unextendedIn(c *memo.Ctx, author string, e model.Extension, at model.ServicePort) *Verdict {
	waypoint := i.Binding.Get(c, at.ServiceName()).Waypoint
	if waypoint == (cluster.Key{}) {
		return nil // so nothing runs anywhere
	}
	if v := i.notAllowed(c, author, e, waypoint.Namespace); v != nil {
		return v
	}
	if author != waypoint.Namespace && !i.letsRun(c, author, waypoint) {
		return unasking(fmt.Sprintf("HTTPExtension %s/%s: waypoint %s is in another namespace, where a ReferenceGrant must "+
			"allow HTTPExtensions of namespace %s to refer to Gateways", author, e.Name, waypoint, author), extensionRefused)
	}
	if e.Processor != nil {
		if why := i.unaskable(c, at, e.Processor.Service, author); why != "" {
			return unasking(fmt.Sprintf("HTTPExtension %s/%s: %s", author, e.Name, why), extensionRefused)
		}
	}
	return nil
}

// notAllowed is about an extension of a type that the Mesh doesn't allow in waypoints of a namespace; nil if it does.
func (i *Ingest) notAllowed(c *memo.Ctx, author string, e model.Extension, namespace string) *Verdict {
	typ := v1alpha1.ExtensionExternalProcessing
	switch {
	case e.Lua != nil:
		typ = v1alpha1.ExtensionLua
	case e.Wasm != nil:
		typ = v1alpha1.ExtensionWasm
	}
	if i.extensionsAllowed.Get(c, namespace)[typ] {
		return nil
	}
	return unasking(fmt.Sprintf("HTTPExtension %s/%s: the Mesh doesn't allow extensions of type %s in waypoints of "+
		"namespace %s (spec.extensions.allow, which is for the administrator of the mesh to say)",
		author, e.Name, typ, namespace), extensionRefused)
}

// extensionRefused is what becomes of requests for which an extension may not be run.
const extensionRefused = "the requests get an error"

// letsRun tells whether the owner of a waypoint lets it run the extensions of another namespace.
func (i *Ingest) letsRun(c *memo.Ctx, author string, waypoint cluster.Key) bool {
	return i.permitted(c,
		policy.Object{
			GroupKind:      schema.GroupKind{Group: v1alpha1.GroupVersion.Group, Kind: v1alpha1.KindHTTPExtension},
			NamespacedName: cluster.Key{Namespace: author},
		},
		policy.Object{GroupKind: policy.Gateway, NamespacedName: waypoint})
}

// unextendedBy is about the first of a route's rules with an extension that the waypoint of a port may not run.
func (i *Ingest) unextendedBy(c *memo.Ctx, rules []model.Rule, at model.ServicePort) *Verdict {
	for _, r := range rules {
		if v := i.unextended(c, r, at); v != nil {
			return v
		}
	}
	return nil
}
