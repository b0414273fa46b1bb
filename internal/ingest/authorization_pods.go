// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unique"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// PodKind is all that decides which policies guard a pod, and at which of its ports: the pods of a workload have it in
// common, and so one guard. The zero value: nothing guards the pod.
type PodKind struct {
	namespace string
	// labels are those that anybody asks for, as labels.Set writes them; ports are the named ones of the containers,
	// likewise.
	labels, ports string
	// listed are the Services without selector that list the pod, separated by commas.
	listed string
}

func (k PodKind) compare(o PodKind) int {
	return cmp.Or(cmp.Compare(k.namespace, o.namespace), cmp.Compare(k.labels, o.labels), cmp.Compare(k.ports, o.ports),
		cmp.Compare(k.listed, o.listed))
}

func (k PodKind) set() labels.Set { return setOf(k.labels) }

// setOf is the inverse of labels.Set.String.
func setOf(text string) labels.Set {
	out := labels.Set{}
	for pair := range strings.SplitSeq(text, ",") {
		if key, value, ok := strings.Cut(pair, "="); ok {
			out[key] = value
		}
	}
	return out
}

func (i *Ingest) podKind(c *memo.Ctx, key cluster.Key) PodKind {
	pod, ok := i.store.Pods.Get(c, key)
	if !ok || !member.Is(pod, i.namespace(c, key.Namespace)) {
		return PodKind{}
	}
	ports := labels.Set{}
	for _, container := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
		for _, p := range container.Ports {
			tcp := cmp.Or(p.Protocol, corev1.ProtocolTCP) == corev1.ProtocolTCP
			if _, known := ports[p.Name]; tcp && p.Name != "" && !known { // as kube-controller-manager has it
				ports[p.Name] = fmt.Sprint(portNumber(p.ContainerPort))
			}
		}
	}
	var listed []string
	for _, svc := range i.listing.Get(c, key.Namespace) {
		if slices.Contains(i.listed.Get(c, svc), key) {
			listed = append(listed, svc.Name)
		}
	}
	return PodKind{
		namespace: key.Namespace, labels: interned(i.labelsAsked(c, pod)), ports: interned(ports.String()),
		listed: interned(strings.Join(listed, ",")),
	}
}

// interned is a string that is there once, however many pods have it.
func interned(s string) string { return unique.Make(s).Value() }

// askedLabels are those that Services and policies of a namespace choose pods by, sorted. All others, such as what
// tells the pods of one workload apart, make no difference.
func (i *Ingest) askedLabels(c *memo.Ctx, namespace string) []string {
	found := map[string]struct{}{}
	for _, s := range i.selecting.Get(c, namespace) {
		for label := range s.selector {
			found[label] = struct{}{}
		}
	}
	for _, a := range i.aimsIn.Get(c, namespace) {
		for _, s := range a.pods {
			requirements, _ := s.Requirements()
			for _, r := range requirements {
				found[r.Key()] = struct{}{}
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

func (i *Ingest) labelsAsked(c *memo.Ctx, pod *corev1.Pod) string {
	out := labels.Set{}
	for _, label := range i.askedIn.Get(c, pod.Namespace) {
		if value, ok := pod.Labels[label]; ok {
			out[label] = value
		}
	}
	return out.String()
}

// podKinds are those of the pods of a namespace, sorted.
func (i *Ingest) podKinds(c *memo.Ctx, namespace string) []PodKind {
	found := map[PodKind]struct{}{}
	for _, key := range i.store.Pods.By(c, cluster.ByNamespace, namespace) {
		if k := i.PodKind.Get(c, key); k != (PodKind{}) {
			found[k] = struct{}{}
		}
	}
	return slices.SortedFunc(maps.Keys(found), PodKind.compare)
}

// behind are the kinds of pods that a Service has.
func (i *Ingest) behind(c *memo.Ctx, svc cluster.Key) []PodKind {
	all := i.kindsIn.Get(c, svc.Namespace)
	for _, s := range i.selecting.Get(c, svc.Namespace) {
		if s.service == svc {
			return slices.DeleteFunc(slices.Clone(all), func(k PodKind) bool { return !s.has(k) })
		}
	}
	return nil
}

// selecting is a Service as it chooses pods: by labels, and without these by its EndpointSlices. A pod is chosen as
// soon as it is there, before it is ready, and before any slice lists it.
type selecting struct {
	service  cluster.Key
	selector map[string]string
	ports    []selectedPort
}

// selectedPort is a TCP port of a Service and where it leads to: to a number, or to a port of the containers by name.
type selectedPort struct {
	name   string
	number uint16
	target intstr.IntOrString
}

func (s *selecting) lists() bool { return len(s.selector) == 0 }

func (s *selecting) has(k PodKind) bool {
	if s.lists() {
		return slices.Contains(strings.Split(k.listed, ","), s.service.Name)
	}
	return s.selects(k.set())
}

func (s *selecting) selects(pod labels.Set) bool {
	for key, value := range s.selector {
		if have, ok := pod[key]; !ok || have != value {
			return false
		}
	}
	return true
}

func (i *Ingest) selectingServices(c *memo.Ctx, namespace string) []*selecting {
	var out []*selecting
	for _, key := range i.store.Services.By(c, cluster.ByNamespace, namespace) {
		s, ok := i.store.Services.Get(c, key)
		if !ok || s.Spec.Type == corev1.ServiceTypeExternalName {
			continue
		}
		of := &selecting{service: key, selector: s.Spec.Selector}
		for _, p := range s.Spec.Ports {
			if cmp.Or(p.Protocol, corev1.ProtocolTCP) != corev1.ProtocolTCP {
				continue
			}
			target := p.TargetPort
			if target == (intstr.IntOrString{}) {
				target = intstr.FromInt32(p.Port)
			}
			of.ports = append(of.ports, selectedPort{name: p.Name, number: portNumber(p.Port), target: target})
		}
		out = append(out, of)
	}
	return out
}

// listingServices of a namespace are those without selector.
func (i *Ingest) listingServices(c *memo.Ctx, namespace string) []cluster.Key {
	var out []cluster.Key
	for _, s := range i.selecting.Get(c, namespace) {
		if s.lists() {
			out = append(out, s.service)
		}
	}
	return out
}

// listedPods are the pods of its namespace that a Service without selector lists, sorted.
func (i *Ingest) listedPods(c *memo.Ctx, svc cluster.Key) []cluster.Key {
	var out []cluster.Key
	for _, e := range i.backingOf.Get(c, svc).endpoints {
		if pod := i.Claims.Get(c, e.Address.Addr()).holder; pod.Namespace == svc.Namespace {
			out = append(out, pod)
		}
	}
	slices.SortFunc(out, byName)
	return slices.Compact(out)
}

// podPort is a port of a Service, and a port of the pod that it leads to.
type podPort struct {
	model.ServicePort
	target uint16
}

// podPorts are the ports of all Services that have pods of a kind, sorted.
func (i *Ingest) podPorts(c *memo.Ctx, k PodKind) []podPort {
	var out []podPort
	named := setOf(k.ports)
	for _, s := range i.selecting.Get(c, k.namespace) {
		if !s.has(k) {
			continue
		}
		for _, p := range s.ports {
			at := model.ServicePort{Namespace: k.namespace, Service: s.service.Name, Port: p.number}
			for _, target := range i.targets(c, s, p, named) {
				out = append(out, podPort{at, target})
			}
		}
	}
	slices.SortFunc(out, func(a, b podPort) int {
		return cmp.Or(a.Compare(b.ServicePort), cmp.Compare(a.target, b.target))
	})
	return slices.Compact(out)
}

// targets are the ports of a pod that a port of a Service leads to; none where the pod has no port of that name.
func (i *Ingest) targets(c *memo.Ctx, s *selecting, p selectedPort, named labels.Set) []uint16 {
	if s.lists() {
		var out []uint16
		for _, slice := range i.backingOf.Get(c, s.service).slices {
			if number, ok := slice.ports[p.name]; ok {
				out = append(out, number)
			}
		}
		return out
	}
	target := p.target.IntVal
	if p.target.Type == intstr.String {
		if _, err := fmt.Sscan(named[p.target.StrVal], &target); err != nil {
			return nil
		}
	}
	return []uint16{portNumber(target)}
}
