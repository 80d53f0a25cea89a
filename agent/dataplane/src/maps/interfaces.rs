//! What the programs know of interfaces.

use aya::maps::MapError;
use palisade_common::value::Interface;

use super::{Maps, store::absent_is_removed};

impl Maps {
    /// What is known of an interface; all zero where nothing is.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn interface(&self, ifindex: u32) -> Result<Interface, MapError> {
        if ifindex < self.interfaces.len() {
            return self.interfaces.get(&ifindex, 0);
        }
        match self.interfaces_high.get(&ifindex, 0) {
            Err(MapError::KeyNotFound) => Ok(Interface::default()),
            found => found,
        }
    }

    /// Writes what is known of an interface; `None` forgets it.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn set_interface(
        &mut self,
        ifindex: u32,
        interface: Option<Interface>,
    ) -> Result<(), MapError> {
        if ifindex < self.interfaces.len() {
            return self
                .interfaces
                .set(ifindex, interface.unwrap_or_default(), 0);
        }
        match interface {
            Some(interface) => self.interfaces_high.insert(ifindex, interface, 0),
            None => absent_is_removed(self.interfaces_high.remove(&ifindex)),
        }
    }
}
