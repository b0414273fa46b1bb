// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"math"
	"slices"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/ingest/policy"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// What routes may cost. A proxy keeps an automaton for each regular expression, which grows with what it is asked, to
// some MB; every rule costs tens of KB, and what it says besides: each match of a rule has all that the rule does, for
// each port. Each backend costs 75 KB, with one endpoint; what more of these cost is bounded elsewhere
// (MostEndpointsOfForeign).
var (
	// mostOfConsumer is what the routes of one namespace may cost the waypoints of another. The Services' own namespace
	// pays with its own waypoint.
	mostOfConsumer = cost{rules: 4096, expressions: 64, bytes: 16 << 20, backends: 512}
	// mostOfConsumers is what those of all others may cost the waypoints of a namespace.
	mostOfConsumers = cost{rules: 16384, expressions: 128, bytes: 64 << 20, backends: 2048}
	// mostOfAuthor is what all routes of one namespace may cost the operator, which makes the tables of everybody.
	mostOfAuthor = cost{rules: math.MaxInt, expressions: math.MaxInt, bytes: 32 << 20, backends: math.MaxInt}
)

// MostConsumersOfService is how many other namespaces may have routes for a Service, the oldest ones. Node proxies tell
// the callers of each apart, at 12 KB for each address of the Service.
const MostConsumersOfService = 256

// MostPortsOfNamespace is how many ports the Services of a namespace that have waypoints may have, the oldest ones.
// Each costs a waypoint 130 KB, and the operator 13.
const MostPortsOfNamespace = 8192

// consumer is a namespace with routes for Services of another.
type consumer struct{ author, owner string }

// over tells whether a route is too much for the Services of a namespace.
func (i *Ingest) over(c *memo.Ctx, ref model.ObjectRef, owner string) (why Verdict, over bool) {
	if why, over = i.overAuthor.Get(c, ref.Namespace)[ref]; over || ref.Namespace == owner {
		return why, over
	}
	why, over = i.overConsumer.Get(c, consumer{ref.Namespace, owner})[ref]
	return why, over
}

// spend gives what has a bill, such as routes, what it costs as long as there is something left. The oldest come
// first, so that a new one takes nothing from those that work. refused is told of the others, and of what older ones
// have.
func spend(bills []*bill, price func(*bill) cost, most cost, refused func(b *bill, older cost)) (spent cost) {
	for _, b := range bills {
		spent = spent.plus(price(b))
	}
	if spent.within(most) {
		return spent // nearly always
	}
	spent = cost{}
	slices.SortFunc(bills, func(a, b *bill) int { return policy.Compare(a.created, a.ref, b.created, b.ref) })
	for _, b := range bills {
		if all := spent.plus(price(b)); all.within(most) {
			spent = all
		} else {
			refused(b, spent)
		}
	}
	return spent
}

// tooMuchOfAuthor says which of a namespace's routes are too much for the operator, and why.
func (i *Ingest) tooMuchOfAuthor(c *memo.Ctx, author string) map[model.ObjectRef]Verdict {
	out := map[model.ObjectRef]Verdict{}
	if i.sumOf(c, listing{routeBills, cluster.ByNamespace, author}).all.within(mostOfAuthor) {
		return out // nearly always
	}
	bills := billsOf(c, i.billOf, i.routesBy(c, cluster.ByNamespace, author))
	spend(bills, func(b *bill) cost { return b.all }, mostOfAuthor, func(b *bill, older cost) {
		out[b.ref] = Verdict{Reason: v1alpha1.RouteReasonOverBudget, Message: fmt.Sprintf(
			"the routes of a namespace are limited to %d bytes in total. A route counts once for each of its ports, and the "+
				"actions of a rule once for each of its matches. This route has %d, older routes of namespace %s have %d. "+
				"Requests that no other route matches get a 404. Name fewer ports in parentRefs, or use several namespaces",
			mostOfAuthor.bytes, b.all.bytes, author, older.bytes)}
	})
	return out
}

// tooMuchOfConsumer says which of a consumer's routes are too much for the owner's waypoints, and why.
func (i *Ingest) tooMuchOfConsumer(c *memo.Ctx, k consumer) map[model.ObjectRef]Verdict {
	most := i.share.Get(c, k.owner)
	out := map[model.ObjectRef]Verdict{}
	i.spendOfConsumer(c, k, most, func(b *bill, older cost) {
		own, part := b.of[k.owner], ""
		if most != mostOfConsumer {
			part = fmt.Sprintf(" (an equal share for each other namespace with routes for Services of %s)", k.owner)
		}
		out[b.ref] = Verdict{Reason: v1alpha1.RouteReasonOverBudget, Message: fmt.Sprintf(
			"the routes of a namespace for Services of another are limited to %d regular expressions, %d matches, %d "+
				"bytes and %d backends outside of the Services' namespace%s. A route counts once for each of its ports (its "+
				"backends don't), and the actions of a rule once for each of its matches. This route has %d, %d, %d and %d, "+
				"older routes of namespace %s for Services of %s have %d, %d, %d and %d. Requests from there to these Services "+
				"that no other route matches get a 404. Use fewer matches or backends, or create the route in namespace %s",
			most.expressions, most.rules, most.bytes, most.backends, part,
			own.expressions, own.rules, own.bytes, own.backends, k.author, k.owner,
			older.expressions, older.rules, older.bytes, older.backends, k.owner)}
	})
	return out
}

func (i *Ingest) spendOfConsumer(c *memo.Ctx, k consumer, most cost, refused func(b *bill, older cost)) cost {
	author := i.overAuthor.Get(c, k.author)
	if len(author) == 0 {
		all := i.sumOf(c, listing{routeBills, cluster.ByConsumer, k.author + "/" + k.owner}).of[k.owner]
		if all.within(most) {
			return all
		}
	}
	bills := slices.DeleteFunc(billsOf(c, i.billOf, i.routesFor(c, k)), func(b *bill) bool {
		_, over := author[b.ref]
		return over
	})
	return spend(bills, func(b *bill) cost { return b.of[k.owner] }, most, refused)
}

// spentByConsumer is what a consumer's routes would cost if there were no others.
func (i *Ingest) spentByConsumer(c *memo.Ctx, k consumer) cost {
	return i.spendOfConsumer(c, k, mostOfConsumer, func(*bill, cost) {})
}

// shareOfConsumers is what each consumer's routes may cost the waypoints of a namespace. Where all together cost too
// much, those are refused that cost most, down to equal parts, so that nobody's many namespaces or large routes take
// from a consumer that has few.
func (i *Ingest) shareOfConsumers(c *memo.Ctx, owner string) cost {
	var rules, expressions, bytes, backends []int
	for _, author := range i.authors.Get(c, owner) {
		spent := i.spent.Get(c, consumer{author, owner})
		rules, expressions = append(rules, spent.rules), append(expressions, spent.expressions)
		bytes, backends = append(bytes, spent.bytes), append(backends, spent.backends)
	}
	return cost{
		rules:       min(mostOfConsumer.rules, equalPart(rules, mostOfConsumers.rules)),
		expressions: min(mostOfConsumer.expressions, equalPart(expressions, mostOfConsumers.expressions)),
		bytes:       min(mostOfConsumer.bytes, equalPart(bytes, mostOfConsumers.bytes)),
		backends:    min(mostOfConsumer.backends, equalPart(backends, mostOfConsumers.backends)),
	}
}

// equalPart is the most that each may have so that all together have no more than there is; those that ask for less
// have what they ask for. It sorts what it is given.
func equalPart(asked []int, most int) int {
	slices.Sort(asked)
	for n, a := range asked {
		part := most / (len(asked) - n)
		if a > part {
			return part
		}
		most -= a
	}
	return math.MaxInt
}

// authorsFor are the other namespaces with routes for Services of a namespace, sorted.
func (i *Ingest) authorsFor(c *memo.Ctx, owner string) []string {
	var out []string
	for _, ref := range i.routesBy(c, cluster.ByOwner, owner) {
		out = append(out, ref.Namespace)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// billsOf routes, of one kind of bills; some have none.
func billsOf(c *memo.Ctx, of *memo.Func[model.ObjectRef, *bill], refs []model.ObjectRef) []*bill {
	out := make([]*bill, 0, len(refs))
	for _, ref := range refs {
		if b := of.Get(c, ref); b != nil {
			out = append(out, b)
		}
	}
	return out
}
