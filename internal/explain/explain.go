// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/route"
)

// Mesh is what the objects of a cluster mean, as the operator would decide it.
type Mesh struct {
	store  *cluster.Store
	ingest *ingest.Ingest
}

// newMesh reads objects; those of kinds that the mesh doesn't read are left out.
func newMesh(objects []client.Object) *Mesh {
	g := memo.New()
	m := &Mesh{store: cluster.NewStore(g)}
	for _, o := range objects {
		_ = m.store.Set(o)
	}
	m.store.Pods.MarkSettled()
	m.ingest = ingest.New(g, m.store, route.CheckRule)
	return m
}

// Question is what is asked about.
type Question struct {
	// Pod that asks, or Account: a ServiceAccount whose pods are in the mesh; neither: somebody outside the cluster.
	Pod, Account types.NamespacedName
	// Service or Target pod that is asked.
	Service, Target types.NamespacedName
	// Port that is asked for; 0: the only or first one.
	Port uint16
	// Request is nil where only a connection is asked about.
	Request *Request
}

// Step is a proxy on the way, and what it decides.
type Step struct {
	// At is where: a waypoint, or the node proxy of a pod.
	At string `json:"at"`
	// Stage of a waypoint, before policies decide there; "" where it is they who do.
	Stage string `json:"stage,omitempty"`
	Decision
}

// Answer is the way from caller to application.
type Answer struct {
	Verdict Verdict `json:"verdict"`
	// Status of HTTP with which the request is answered on its way, where that is sure; 0: it isn't.
	Status int `json:"status,omitempty"`
	// DependsOn are those who decide where the verdict is Depends.
	DependsOn []string `json:"dependsOn,omitempty"`
	// Caller is who asks, as proxies know it.
	Caller string `json:"caller"`
	// Identity is "" where there is none.
	Identity string `json:"identity,omitempty"`
	Steps    []Step `json:"steps"`
}

// Ask walks the way of a connection or a request. An error says what doesn't exist.
func (m *Mesh) Ask(q Question) (Answer, error) {
	w := &walk{Mesh: m, question: q}
	if err := w.caller(); err != nil {
		return Answer{}, err
	}
	if err := w.destination(); err != nil {
		return Answer{}, err
	}
	w.answer.Verdict = together(w.ends)
	w.answer.summarize()
	return w.answer, nil
}

// summarize the steps: who decides, or which answer it is, where nothing else can come before.
func (a *Answer) summarize() {
	sure := true
	for _, s := range a.Steps {
		switch {
		case a.Verdict == Depends && s.DependsOn != "" && !slices.Contains(a.DependsOn, s.DependsOn):
			a.DependsOn = append(a.DependsOn, s.DependsOn)
		case a.Verdict == s.Verdict && s.Status != 0:
			sure = sure && (a.Status == 0 || a.Status == s.Status)
			a.Status = s.Status
		}
		sure = sure && len(s.MayAnswer) == 0 && s.Verdict != Depends
	}
	if !sure {
		a.Status = 0
	}
}

// together is the verdict of ways of which any may be taken.
func together(ends []Verdict) Verdict {
	out := ends[0]
	for _, v := range ends {
		if v != out {
			return Depends
		}
	}
	return out
}

// walk is one question on its way.
type walk struct {
	*Mesh
	question Question
	answer   Answer
	// member: the caller's own proxy sends it on.
	member bool
	// ends are the verdicts of the ways that there are: one for each pod, or where it goes no further.
	ends []Verdict
}

// step tells of a proxy on the way.
func (w *walk) step(at string, d Decision) {
	w.answer.Steps = append(w.answer.Steps, Step{At: at, Decision: d})
}

// end is the last step of a way.
func (w *walk) end(at string, d Decision) {
	w.step(at, d)
	w.ends = append(w.ends, d.Verdict)
}

// caller finds out who asks.
func (w *walk) caller() error {
	settings := w.ingest.Settings.Get(nil, struct{}{})
	switch q := w.question; {
	case q.Account.Name != "":
		w.member = true
		w.answer.Identity = names.SPIFFEID(settings.TrustDomain, q.Account.Namespace, q.Account.Name)
		w.answer.Caller = "a pod of ServiceAccount " + q.Account.String()
	case q.Pod.Name != "":
		pod, ok := w.store.Pods.Get(nil, q.Pod)
		if !ok {
			return fmt.Errorf("there is no pod %s: a caller is pod/NAMESPACE/NAME, sa/NAMESPACE/NAME or outside", q.Pod)
		}
		w.answer.Caller = "pod " + q.Pod.String()
		if work := w.workload(pod); work != nil && work.MTLS {
			w.member, w.answer.Identity = true, work.Identity
		} else {
			w.answer.Caller += ", which is not in the mesh: it has no identity"
		}
	default:
		w.answer.Caller = "somebody outside the mesh, without an identity"
	}
	return nil
}

func (w *walk) workload(pod *corev1.Pod) *model.Workload {
	for _, ip := range pod.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			return w.ingest.Workload.Get(nil, a)
		}
	}
	return nil
}

// destination goes on from the caller's proxy.
func (w *walk) destination() error {
	q := w.question
	if q.Target.Name != "" {
		pod, ok := w.store.Pods.Get(nil, q.Target)
		if !ok {
			return fmt.Errorf("there is no pod %s", q.Target)
		}
		if q.Port == 0 {
			return fmt.Errorf("say which port of pod %s is asked for (--port)", q.Target)
		}
		w.atPod(pod, q.Port, w.answer.Identity)
		return nil
	}
	svc := w.ingest.Service.Get(nil, q.Service)
	if svc == nil {
		return fmt.Errorf("there is no Service %s: name what is asked as NAMESPACE/NAME, or pod/NAMESPACE/NAME", q.Service)
	}
	port := cmp.Or(q.Port, firstPort(svc))
	if _, ok := svc.Port(port); !ok {
		return fmt.Errorf("the Service %s has no TCP port %d: it has %s", q.Service, port, portsOf(svc))
	}
	at := model.ServicePort{Namespace: q.Service.Namespace, Service: q.Service.Name, Port: port}
	if !w.member || len(svc.VIPs) == 0 {
		w.atPods(at, w.answer.Identity)
		return nil
	}
	d := w.ingest.Destination.Get(nil, netip.AddrPortFrom(svc.VIPs[0], port))
	switch {
	case d.Kind == model.DestinationRefused:
		w.end("the caller's node proxy", Decision{Verdict: Denied, Reason: d.Reason})
	case d.Kind == model.DestinationWaypoint, d.Kind == model.DestinationService && w.isCaller(d):
		w.atWaypoint(at)
	default:
		w.atPods(at, w.answer.Identity)
	}
	return nil
}

// isCaller tells whether callers of the namespace go to the waypoint, though others don't.
func (w *walk) isCaller(d *model.Destination) bool {
	_, ns, _, ok := names.ParseSPIFFEID(w.answer.Identity)
	return ok && slices.Contains(d.Callers, ns)
}

func firstPort(svc *model.Service) uint16 {
	if len(svc.Ports) == 0 {
		return 0
	}
	return svc.Ports[0].Number
}

func portsOf(svc *model.Service) string {
	if len(svc.Ports) == 0 {
		return "none"
	}
	var out []string
	for _, p := range svc.Ports {
		out = append(out, strconv.Itoa(int(p.Number)))
	}
	return strings.Join(out, ", ")
}

// atPods asks the node proxy of each pod behind a port.
func (w *walk) atPods(at model.ServicePort, identity string) {
	w.atEndpoints(at, w.ingest.Endpoints.Get(nil, at), identity)
}

func (w *walk) atEndpoints(at model.ServicePort, endpoints []model.Endpoint, identity string) {
	if len(endpoints) == 0 {
		w.end("Service "+at.ServiceName().String(), Decision{Verdict: Denied, Reason: "the port has no ready endpoint"})
	}
	for _, e := range endpoints {
		pods := w.store.Pods.By(nil, cluster.ByAddress, e.Address.Addr().String())
		if len(pods) == 0 {
			w.end(e.Address.String(), Decision{Verdict: Allowed, Reason: "no pod of the cluster, so nothing guards it"})
			continue
		}
		pod, _ := w.store.Pods.Get(nil, pods[0])
		w.atPod(pod, e.Address.Port(), identity)
	}
}

// atPod asks the proxy of the pod's node.
func (w *walk) atPod(pod *corev1.Pod, port uint16, identity string) {
	key := client.ObjectKeyFromObject(pod)
	at := fmt.Sprintf("pod %s, port %d (node proxy of %s)", key, port, pod.Spec.NodeName)
	work := w.workload(pod)
	guard := w.ingest.PodGuard.Get(nil, key)
	switch {
	case work == nil || !work.MTLS || guard == nil:
		w.end(at, Decision{Verdict: Allowed, Reason: "the pod is not in the mesh, so no proxy guards it"})
	case identity == "" && w.strict(pod, port):
		w.end(at, Decision{
			Verdict: Denied, Reason: "the port takes mTLS only (mode Strict), and the caller has no identity",
		})
	default:
		w.end(at, atPod(*guard, Caller{identity: identity, port: port}))
	}
}

// strict tells whether plain text is refused at a port of a pod.
func (w *walk) strict(pod *corev1.Pod, port uint16) bool {
	ns, _ := w.store.Namespaces.Get(nil, cluster.Key{Name: pod.Namespace})
	mesh, _ := w.store.Meshes.Get(nil, cluster.Key{Name: names.Mesh})
	var policies []v1alpha1.AuthenticationPolicy
	for _, key := range w.store.Authentication.By(nil, cluster.ByNamespace, pod.Namespace) {
		if p, ok := w.store.Authentication.Get(nil, key); ok {
			policies = append(policies, *p)
		}
	}
	return member.Decide(pod, ns, mesh, names.SystemNamespace, policies...).StrictAt(port)
}
