// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package memo computes values from other values and remembers what each one read, so that after a change only the
// values that (transitively) read the changed input are looked at again, and only those whose inputs really came out
// different are computed again. It is what makes cost follow the change everywhere in the control plane.
//
// The functions given to it must be pure: everything they read comes through the Ctx they are handed. The graph is
// used by one goroutine at a time; it starts none and takes no locks.
package memo

import (
	"cmp"
	"fmt"
	"slices"
)

// Graph holds inputs, derived values and who read whom.
type Graph struct {
	revision uint64
	inputs   *Inputs[any]
	dirty    []*node // roots to look at again at the next Flush
	// unsettled are steady values to look at again before anything else, in the order of their height.
	unsettled unsettled
	// computed counts the computations since the start, and Reads what each of them read; tests hold the cost of a change
	// against them.
	computed, Reads uint64
}

// New returns an empty graph.
func New() *Graph {
	g := &Graph{}
	g.inputs = NewInputs[any](g)
	return g
}

type state uint8

const (
	clean state = iota
	maybe       // something that it read, directly or not, has changed
	fresh       // never computed
)

// node is an input or a derived value. There are dozens for each object of the cluster, so each byte counts.
type node struct {
	state     state
	running   bool
	queued    bool
	steady    bool // see Func.Steady
	input     bool
	picked    bool   // it is marked where it differs, not whenever what it is picked from does; see Pick
	looked    bool   // see settleBefore
	untold    bool   // it is steady, came out different, and not all of its users have read that or were marked for it
	height    int32  // more than that of all that it read
	changedAt uint64 // revision at which the value last came out different
	madeAt    uint64 // revision at which the value was last computed
	deps      []*node
	suspects  *suspects // nil where there are none, as of nearly all values
	// users are those that read it, and at which place of their deps it is.
	users readers
	of    value // nil once it is forgotten
	root  *root // nil for all but watched values
}

// value is what a node is of.
type value interface {
	compute(c *Ctx) (changed bool)
	forget()
	// concerned are the picked values that what has changed is about; each is told once.
	concerned() []*node
	// tell tells the function's watcher; see Func.Keep.
	tell()
}

// suspects are those of the deps of a value that may have changed since: a look at the value looks at no others.
type suspects struct{ of []*node }

func (n *node) suspect(d *node) {
	if n.suspects == nil {
		n.suspects = &suspects{}
	}
	if of := n.suspects.of; len(of) == 0 || of[len(of)-1] != d {
		n.suspects.of = append(of, d)
	}
}

// root is what a watched value has besides.
type root struct {
	tell   func() // nil: the function's watcher is told
	toldAt uint64 // changedAt of the value that the watcher was last told; 0: a new watcher, not told yet
}

// Ctx records what a computation reads. A nil Ctx reads without recording.
type Ctx struct {
	g    *Graph
	node *node
	// read is how much of what the last computation read this one has read so far, in the same order: nearly always all
	// of it, and then nothing has to be recorded. left is the rest, once something else was read.
	read int
	left []*node
}

// Read records that the computation depends on an input. The key is any comparable value that the owner of the
// input also gives to Touch. Who has many has them in Inputs.
func (c *Ctx) Read(key any) {
	if c != nil {
		c.g.inputs.Read(c, key)
	}
}

func (c *Ctx) depend(on *node) {
	n := c.node
	if c.left == nil && c.read < len(n.deps) && n.deps[c.read] == on {
		c.read++
		c.g.Reads++
		return
	}
	if place, ok := on.users.place(n); ok && place < c.read && n.deps[place] == on {
		return
	}
	if c.left == nil {
		c.left = append(make([]*node, 0, len(n.deps)-c.read), n.deps[c.read:]...)
		n.deps = n.deps[:c.read]
	}
	c.g.Reads++
	c.read++
	on.users.set(n, len(n.deps))
	n.deps = append(n.deps, on)
}

// done forgets what the last computation read and this one didn't.
func (c *Ctx) done() {
	n := c.node
	if c.left == nil {
		c.left = append(c.left, n.deps[c.read:]...)
		n.deps = n.deps[:c.read]
	}
	if spare := n.deps[len(n.deps):cap(n.deps)]; len(spare) > len(n.deps)/4 {
		n.deps = slices.Clip(slices.Clone(n.deps))
	} else {
		clear(spare)
	}
	for _, d := range c.left {
		if place, _ := d.users.place(n); place >= len(n.deps) || n.deps[place] != d {
			d.users.remove(n)
			d.collect()
		}
	}
}

// Touch says that an input has changed. Values that nobody derived from it cost nothing.
func (g *Graph) Touch(key any) { g.inputs.Touch(key) }

// spoil marks what read a value that may have changed.
func (g *Graph) spoil(n *node) {
	for u := range n.users.all {
		if !u.picked || n.state == maybe {
			g.mark(u, n)
		}
	}
	for _, u := range n.of.concerned() {
		if u.of != nil { // else it was forgotten meanwhile
			g.mark(u, n)
		}
	}
}

func (g *Graph) mark(u, suspect *node) {
	u.suspect(suspect)
	if u.state != clean {
		return
	}
	u.state = maybe
	g.enqueue(u)
	if u.steady {
		g.unsettled.add(u)
		return
	}
	g.spoil(u)
}

// settle brings steady values up to date, and marks the users of those that really changed. Until then these users look
// clean, so it goes before every look at a value from outside.
func (g *Graph) settle() {
	for n := g.unsettled.next(); n != nil; n = g.unsettled.next() {
		if n.users.len() > 0 { // else whoever reads it next looks at it then
			g.settleOne(n)
		}
	}
}

func (g *Graph) settleOne(n *node) {
	g.refresh(n)
	if n.untold {
		n.untold = false
		g.spoil(n)
	}
}

// settleBefore settles what a value was computed of, directly or not. While steady values are settled, in order of
// their height, one of them may read what it didn't before, of which others are still to be settled.
func (g *Graph) settleBefore(n *node) {
	if !g.unsettled.look(n) {
		return
	}
	for _, d := range n.deps {
		if d.height < g.unsettled.lowest {
			continue
		}
		g.settleBefore(d)
		if d.steady && d.state == maybe {
			g.settleOne(d)
		}
	}
}

func (g *Graph) enqueue(n *node) {
	if n.root != nil && !n.queued {
		n.queued = true
		g.dirty = append(g.dirty, n)
	}
}

// Flush brings every watched value up to date and calls the watchers of those that changed.
func (g *Graph) Flush() {
	g.settle()
	for len(g.dirty) > 0 {
		batch := g.dirty
		g.dirty = nil
		for _, n := range batch {
			n.queued = false
			g.settle()
			if n.root == nil {
				continue // unwatched meanwhile
			}
			g.refresh(n) // or another root that reads this one has done so already
			if n.root != nil && n.root.toldAt != n.changedAt {
				n.root.toldAt = n.changedAt
				n.tell()
			}
		}
	}
}

// tell tells the watcher of a value.
func (n *node) tell() {
	if n.root.tell != nil {
		n.root.tell()
		return
	}
	n.of.tell()
}

// refresh makes a node clean: by finding that nothing it read changed, or by computing it again.
func (g *Graph) refresh(n *node) {
	if n.height > g.unsettled.lowest && g.unsettled.count > 0 && !n.running {
		g.settleBefore(n)
	}
	switch {
	case n.state == clean:
		return
	case n.running:
		panic("memo: a value was defined by itself") // a mistake in the program: no input can cause it
	case n.state == maybe && !g.stale(n):
		n.state, n.suspects = clean, nil
		return
	}
	g.run(n)
}

// stale tells whether something that a value was computed of came out different. It looks in the order in which that
// was read: whether the next was to be read may depend on it.
func (g *Graph) stale(n *node) bool {
	slices.SortFunc(n.suspects.of, func(a, b *node) int {
		placeA, _ := a.users.place(n)
		placeB, _ := b.users.place(n)
		return cmp.Compare(placeA, placeB)
	})
	for _, d := range n.suspects.of {
		if !d.input {
			g.refresh(d)
		}
		if d.changedAt > n.madeAt {
			return true
		}
	}
	return false
}

func (g *Graph) run(n *node) {
	c := &Ctx{g: g, node: n}
	n.running, n.suspects = true, nil
	g.computed++
	changed := n.of.compute(c)
	n.running = false
	if changed || n.state == fresh {
		g.revision++
		n.changedAt = g.revision
	}
	// Of the first value there is nothing to tell: nobody has read another one.
	n.untold = n.steady && (n.untold || changed) && n.state != fresh
	n.state, n.madeAt = clean, g.revision
	c.done()
	n.rise()
}

// rise has the node stand higher than what it read, and what reads it higher than the node.
func (n *node) rise() {
	height := n.height
	for _, d := range n.deps {
		height = max(height, d.height+1)
	}
	n.raise(height)
}

func (n *node) raise(height int32) {
	if n.height >= height || n.running {
		return // what is running is yet to rise
	}
	n.height = height
	for u := range n.users.all {
		u.raise(height + 1)
	}
}

// collect forgets a node that nobody reads any more, and what only it read.
func (n *node) collect() {
	if n.users.len() > 0 || n.root != nil || n.running || n.of == nil {
		return
	}
	n.of.forget()
	n.of = nil
	deps := n.deps
	n.deps = nil
	for _, d := range deps {
		d.users.remove(n)
		d.collect()
	}
}

// Func is a pure function from keys to values whose results are remembered.
type Func[K comparable, V any] struct {
	graph   *Graph
	name    string
	compute func(*Ctx, K) V
	equal   func(a, b V) bool
	nodes   map[K]*entry[K, V]
	kept    func(K, V) // told of values that are kept
	steady  bool
	// picked, differ and differing are of Pick: this is picked; and of what is picked from this, what differs between
	// two values of a key, and what does and isn't marked yet.
	picked    bool
	differ    func(key K, before, now V) []*node
	differing map[K][]*node
}

// Steady says that the values hardly ever come out different though what they read changes often, and that many others
// read them. They are derived as soon as anything of theirs changed, so that their readers are not even looked at in
// vain.
func (f *Func[K, V]) Steady() *Func[K, V] {
	f.steady = true
	return f
}

// entry is a value of a function.
type entry[K comparable, V any] struct {
	node
	f     *Func[K, V]
	key   K
	value V
}

func (e *entry[K, V]) compute(c *Ctx) (changed bool) {
	v := e.f.compute(c, e.key)
	if changed = e.state == fresh || !e.f.equal(e.value, v); changed {
		e.note(v)
		e.value = v
	}
	return changed
}

func (e *entry[K, V]) forget() { delete(e.f.nodes, e.key) }
func (e *entry[K, V]) tell()   { e.f.kept(e.key, e.value) }

// Define adds a function to the graph. equal decides whether a newly computed value counts as a change; what reads
// the value is left alone where it does not.
func Define[K comparable, V any](g *Graph, name string, equal func(a, b V) bool, compute func(*Ctx, K) V) *Func[K, V] {
	return &Func[K, V]{graph: g, name: name, compute: compute, equal: equal, nodes: map[K]*entry[K, V]{}}
}

// Get returns the value at a key, computing it if need be, and records that the caller read it. With a nil Ctx the
// value is computed and nothing about this read is recorded.
func (f *Func[K, V]) Get(c *Ctx, key K) V {
	if c == nil {
		f.graph.settle() // before there is an entry: it may forget the one of this key
	}
	e := f.entry(key)
	if c != nil {
		c.depend(&e.node)
	}
	f.graph.refresh(&e.node)
	value := e.value
	if c == nil {
		e.collect()
	}
	return value
}

// Watch keeps the value at a key up to date: changed is called from Flush with the first value and then with every
// new one. Watching a key again replaces changed.
func (f *Func[K, V]) Watch(key K, changed func(V)) {
	e := f.entry(key)
	e.root = &root{tell: func() { changed(e.value) }}
	f.graph.enqueue(&e.node)
}

// OnKept says who is told of the values that are kept.
func (f *Func[K, V]) OnKept(told func(K, V)) { f.kept = told }

// Keep is Watch where one watcher is told of all keys (OnKept): where there are many, to have one for each is most of
// what watching costs.
func (f *Func[K, V]) Keep(key K) {
	e := f.entry(key)
	e.root = &root{}
	f.graph.enqueue(&e.node)
}

// Unwatch ends a Watch, or a Keep, and forgets what only it needed.
func (f *Func[K, V]) Unwatch(key K) {
	if e, ok := f.nodes[key]; ok {
		e.root = nil
		e.collect()
	}
}

// Watched tells whether a key is being watched.
func (f *Func[K, V]) Watched(key K) bool {
	e, ok := f.nodes[key]
	return ok && e.root != nil
}

func (f *Func[K, V]) entry(key K) *entry[K, V] {
	if e, ok := f.nodes[key]; ok {
		return e
	}
	e := &entry[K, V]{f: f, key: key}
	e.of, e.state, e.steady, e.picked = e, fresh, f.steady, f.picked
	f.nodes[key] = e
	return e
}

// String names the function and the number of remembered values, for debugging.
func (f *Func[K, V]) String() string { return fmt.Sprintf("%s(%d)", f.name, len(f.nodes)) }
