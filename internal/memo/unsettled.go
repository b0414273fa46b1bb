// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package memo

// unsettled are steady values that may have changed, by height: a value is settled after all that it was computed of,
// so that it is never computed of some that are up to date and others that aren't.
type unsettled struct {
	at     [][]*node // by height
	lowest int32
	count  int
	// looked are those that were looked at since the last one was added.
	looked []*node
}

// look tells whether a value is still to be looked at since the last one was added, and notes that it has been.
func (q *unsettled) look(n *node) bool {
	if n.looked {
		return false
	}
	n.looked = true
	q.looked = append(q.looked, n)
	return true
}

func (q *unsettled) add(n *node) {
	for len(q.at) <= int(n.height) {
		q.at = append(q.at, nil)
	}
	q.at[n.height] = append(q.at[n.height], n)
	for _, was := range q.looked {
		was.looked = false
	}
	clear(q.looked)
	q.looked = q.looked[:0]
	if q.count == 0 || n.height < q.lowest {
		q.lowest = n.height
	}
	q.count++
}

// next is the lowest, which is none of them any more; nil: there are none.
func (q *unsettled) next() *node {
	for ; q.count > 0; q.lowest++ {
		for list := q.at[q.lowest]; len(list) > 0; list = q.at[q.lowest] {
			n := list[len(list)-1]
			list[len(list)-1] = nil
			q.at[q.lowest] = list[:len(list)-1]
			if q.count--; n.height == q.lowest {
				return n
			}
			q.add(n) // it has risen meanwhile
		}
	}
	return nil
}
