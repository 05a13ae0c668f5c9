package storage

import (
	"slices"

	"restante/storage/internal/journal"
)

// refusal is a message that the journal has and its mailboxes could not take: its
// sender was told so, and recovery must not deliver it. It is kept until the journal
// says that, or has forgotten the message.
type refusal struct {
	seq     uint64 // of the message
	removal record
}

// keepRefusal remembers a refusal before the record of the message is settled, so
// that a checkpoint that waits for that knows of it.
func (s *Store) keepRefusal(seq uint64, name string, to []address) *refusal {
	r := &refusal{seq, record{kind: recordRemoved, to: to, names: []string{name}}}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refusals = append(s.refusals, r)
	return r
}

// refuse has recovery forget a message. When that fails, checkpoints try again.
func (s *Store) refuse(j *journal.Journal, r *refusal) error {
	err := s.journalRemoval(j, r.removal)
	if err != nil {
		s.log.Error("a refused message is still in the journal, a crash now would deliver it", "file", r.removal.names[0], "error", err)
		return err
	}
	s.dropRefusals(func(k *refusal) bool { return k == r })
	return nil
}

// refuseAgain does what refuse could not, until that fails once more: the others
// would not fare better.
func (s *Store) refuseAgain(j *journal.Journal) {
	for _, r := range s.undoneRefusals() {
		if s.refuse(j, r) != nil {
			return
		}
	}
}

// undoneRefusals are those that the journal has not been told of.
func (s *Store) undoneRefusals() []*refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.refusals)
}

// dropRefusals forgets those that are done.
func (s *Store) dropRefusals(done func(r *refusal) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refusals = slices.DeleteFunc(s.refusals, done)
}
