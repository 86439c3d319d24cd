//! Lists that most of their owners do not have.

use std::ops::Deref;

/// A list that takes 8 bytes as long as it is empty.
#[derive(Debug, Clone)]
#[expect(clippy::box_collection, reason = "a `Vec` takes 24 bytes, also where it is empty")]
pub(super) struct RareList<T>(Option<Box<Vec<T>>>);

impl<T> RareList<T> {
    /// The list, to change it.
    pub fn vec_mut(&mut self) -> &mut Vec<T> {
        self.0.get_or_insert_default()
    }

    /// Removes the last item.
    pub fn pop(&mut self) -> Option<T> {
        self.0.as_mut()?.pop()
    }

    /// Gives the memory of the list back if it is empty.
    pub fn drop_empty(&mut self) {
        self.0.take_if(|list| list.is_empty());
    }
}

impl<T> Default for RareList<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> From<Vec<T>> for RareList<T> {
    fn from(list: Vec<T>) -> Self {
        Self((!list.is_empty()).then(|| Box::new(list)))
    }
}

impl<T> Deref for RareList<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }
}

impl<T: PartialEq> PartialEq for RareList<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Eq> Eq for RareList<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_equals_none() {
        let mut list = RareList::default();
        assert_eq!(std::mem::size_of_val(&list), 8);
        list.vec_mut().push(3);
        assert_eq!((&*list, list == RareList::from(vec![3])), (&[3][..], true));
        assert_eq!((list.pop(), list.pop()), (Some(3), None));
        assert!(list == RareList::default() && list == RareList::from(Vec::new()));
        list.drop_empty();
        assert!(list.0.is_none());
    }
}
