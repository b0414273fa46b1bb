// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package counts

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// OriginKind is where a caller without identity is.
type OriginKind string

// Kinds of origins.
const (
	// OriginPod is a pod outside the mesh.
	OriginPod OriginKind = "pod"
	// OriginMember is a pod that is captured.
	OriginMember OriginKind = "member"
	// OriginNode is a node: a pod in its network, a process, or whoever came by a NodePort of externalTrafficPolicy
	// Cluster.
	OriginNode OriginKind = "node"
	// OriginOutside is none of the cluster's addresses.
	OriginOutside OriginKind = "outside"
	// OriginOthers are sources that aren't told apart.
	OriginOthers OriginKind = "others"
)

// Origin of callers without identity.
type Origin struct {
	Kind OriginKind `json:"kind"`
	// Namespace of a pod.
	Namespace string `json:"namespace,omitempty"`
}

// Workload that they come to.
type Workload struct {
	Namespace string `json:"namespace"`
	// Name is that of a Deployment or another owner; the pod's where it has none.
	Name string `json:"name"`
}

// Stranger is how many callers of an origin came to a workload in the last hour.
type Stranger struct {
	Workload `json:"to"`
	From     Origin `json:"from"`
	// LetIn and Refused connections, by policies or because the pod takes no plain text.
	LetIn   uint64 `json:"letIn"`
	Refused uint64 `json:"refused"`
}

const (
	window  = time.Hour
	buckets = 12
	// maxStrangers bounds the pairs of origin and workload.
	maxStrangers = 1 << 15
	// perFreeOfStrangers is Room's.
	perFreeOfStrangers = 8
)

// Strangers sums up who came to whom in plain text in the last hour.
type Strangers struct {
	now   func() time.Time
	began time.Time

	mu sync.Mutex
	of map[pair]*sums
	// room is shared by the namespaces of workloads.
	room *Room[string]
	// swept is when room was looked for last, in what all have.
	swept time.Time
}

type pair struct {
	to   Workload
	from Origin
}

// sums are a ring of times. at is when a bucket was begun.
type sums struct {
	at             [buckets]time.Time
	letIn, refused [buckets]uint64
}

// NewStrangers knows of none.
func NewStrangers() *Strangers {
	return &Strangers{
		now: time.Now, began: time.Now(), of: map[pair]*sums{},
		room: NewRoom[string](maxStrangers, perFreeOfStrangers),
	}
}

// Since is from when on callers are summed up: an hour ago, or when it began.
func (s *Strangers) Since() time.Time {
	if hour := s.now().Add(-window); hour.After(s.began) {
		return hour
	}
	return s.began
}

// Add what a count has grown by. A count that began before the last hour may be of any time, when it is told first.
func (s *Strangers) Add(to Workload, from Origin, g Growth) {
	now := s.now()
	if g.First && now.Sub(g.Since) > window {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.of[pair{to, from}]
	if n == nil {
		if !s.room.Has(to.Namespace) && now.Sub(s.swept) >= window/buckets {
			s.sweep(now)
		}
		if !s.room.Has(to.Namespace) {
			return
		}
		s.room.Take(to.Namespace)
		n = &sums{}
		s.of[pair{to, from}] = n
	}
	begin := now.Truncate(window / buckets)
	i := int(begin.Unix()/int64(window/buckets/time.Second)) % buckets
	if !n.at[i].Equal(begin) {
		n.at[i], n.letIn[i], n.refused[i] = begin, 0, 0
	}
	if g.Kind == Strict {
		n.refused[i] += g.Added
	} else {
		n.letIn[i] += g.Added
	}
}

func (s *Strangers) sweep(now time.Time) {
	s.swept = now
	for p, n := range s.of {
		if letIn, refused := n.sum(now); letIn+refused == 0 {
			delete(s.of, p)
			s.room.Give(p.to.Namespace)
		}
	}
}

func (n *sums) sum(now time.Time) (letIn, refused uint64) {
	for i := range buckets {
		if now.Sub(n.at[i]) < window {
			letIn, refused = letIn+n.letIn[i], refused+n.refused[i]
		}
	}
	return letIn, refused
}

// List is the last hour's, by workload, the most first.
func (s *Strangers) List() []Stranger {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	s.sweep(now)
	out := make([]Stranger, 0, len(s.of))
	for p, n := range s.of {
		x := Stranger{Workload: p.to, From: p.from}
		x.LetIn, x.Refused = n.sum(now)
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b Stranger) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name),
			cmp.Compare(b.LetIn+b.Refused, a.LetIn+a.Refused), cmp.Compare(a.From.Kind, b.From.Kind),
			cmp.Compare(a.From.Namespace, b.From.Namespace))
	})
	return out
}
